/* Answers a bench over a serial port: one request, one answer (topokd_serial.h has the frames).
 *
 * What it runs is measured.h: measured_student.h, of an int8 student, or measured_pipeline.h, of a float pipeline.
 * Both have MEASURED_CHANNELS and so on, and classify(), from `samples` to `logits`; where `watching` it fills
 * `checksums`.
 *
 *     request             payload                     answer, of kind + 0x80
 *     HELLO    1          -                           8 numbers (see hello), digest of the bundle, text with
 *                                                     the name of the pipeline
 *     SAMPLES  2          offset, bytes               -              part of the window, floats
 *     RUN      3          crc of the window           status, ticks, logits: int8 of an int8 student, else float
 *     LAYERS   4          crc of the window           status, logits, a checksum for each layer
 *     STACK    5          -                           bytes, the deepest of all RUN since HELLO
 *     TICKS    6          -                           ticks
 *
 * RUN and LAYERS are taken (TAKEN) before they are begun, so that a sender can tell a lost request from a slow
 * answer. A request that comes again with the same number is answered again and not done again, HELLO excepted.
 * Anything else is answered by ERROR and one byte why.
 */
#include "board.h"
#include "config.h"
#include "topokd_serial.h"

#define PAINT 0xA5A5A5A5U
#define WORDS (BENCH_STACK_BYTES / 4U)
#define WINDOW_BYTES ((uint32_t)sizeof(samples))

enum { HELLO = 1, SAMPLES = 2, RUN = 3, LAYERS = 4, STACK = 5, TICKS = 6 };
enum { ANSWER = 0x80, TAKEN = 0x7E, ERROR = 0x7F };
enum { WRONG_FRAME = 1, WRONG_VERSION = 2, WRONG_KIND = 3, WRONG_LENGTH = 4, WRONG_PLACE = 5, WRONG_WINDOW = 6 };

extern uint32_t _stack_top[];
extern uint8_t _image_bytes[];

void bench(void);

static int32_t watching;
static uint32_t deepest;
static ts_receiver receiver;
static ts_frame answer;
static int32_t answered;

#include "measured.h"

/* The longest answers fit. */
typedef char bench_layers_fit[((4U + sizeof(logits) + sizeof(checksums)) <= TS_PAYLOAD) ? 1 : -1];
typedef char bench_text_fits[((32U + 32U + sizeof(BENCH_ABOUT)) <= TS_PAYLOAD) ? 1 : -1];

/* Paint the stack below this frame, run, and see how deep the paint is gone. Returns the ticks. */
static __attribute__((__noinline__)) uint32_t measured(int32_t *status)
{
    volatile uint32_t *const bottom = _stack_top - WORDS;
    volatile uint32_t *const frame = (volatile uint32_t *)__builtin_frame_address(0) - 32;
    volatile uint32_t *at;
    uint32_t ticks;
    uint32_t depth;
    for (at = bottom; at < frame; at++) {
        *at = PAINT;
    }
    ticks = board_ticks();
    *status = classify();
    ticks = board_ticks() - ticks;
    for (at = bottom; (at < frame) && (*at == PAINT); at++) {
    }
    depth = (uint32_t)((uintptr_t)_stack_top - (uintptr_t)at);
    deepest = (depth > deepest) ? depth : deepest;
    return ticks;
}

/* In a frame of its own, so that the last answer can still be sent again. */
static void refuse(uint8_t sequence, uint8_t why)
{
    static ts_frame refusal;
    ts_begin(&refusal, (uint8_t)ERROR, sequence);
    (void)ts_add(&refusal, &why, 1U);
    ts_send(&refusal, board_write);
}

static void hello(void)
{
    static const uint8_t digest[32] = {BENCH_DIGEST};
    static const char about[] = BENCH_ABOUT;
    const uint32_t numbers[8] = {board_ticks_hz(),
                                 board_clock_hz(),
                                 MEASURED_CHANNELS,
                                 MEASURED_LENGTH,
                                 MEASURED_CLASSES,
                                 MEASURED_LAYERS,
                                 (uint32_t)MEASURED_BYTES,
                                 (uint32_t)(uintptr_t)_image_bytes};
    uint32_t i;
    deepest = 0U;
    for (i = 0U; i < 8U; i++) {
        (void)ts_add_u32(&answer, numbers[i]);
    }
    (void)ts_add(&answer, digest, 32U);
    (void)ts_add(&answer, (const uint8_t *)about, (uint32_t)sizeof(about) - 1U);
}

/* Keep a part of the window. */
static uint8_t keep_samples(const uint8_t *payload, uint32_t length)
{
    const uint32_t offset = (length >= 4U) ? ts_u32(payload) : 0U;
    uint32_t i;
    if (length < 4U) {
        return WRONG_LENGTH;
    }
    if ((offset > WINDOW_BYTES) || ((length - 4U) > (WINDOW_BYTES - offset))) {
        return WRONG_PLACE;
    }
    for (i = 4U; i < length; i++) {
        ((uint8_t *)samples)[offset + i - 4U] = payload[i];
    }
    return 0U;
}

/* Say that the work is begun, do it, and answer. */
static void run(uint8_t kind, uint8_t sequence)
{
    int32_t status;
    uint32_t ticks;
    int32_t i;
    ts_begin(&answer, (uint8_t)TAKEN, sequence);
    ts_send(&answer, board_write);
    ts_begin(&answer, (uint8_t)(kind | ANSWER), sequence);
    watching = (kind == (uint8_t)LAYERS) ? 1 : 0;
    ticks = measured(&status);
    (void)ts_add_u32(&answer, (uint32_t)status);
    if (kind == (uint8_t)RUN) {
        (void)ts_add_u32(&answer, ticks);
    }
    (void)ts_add(&answer, (const uint8_t *)logits, (uint32_t)sizeof(logits));
    for (i = 0; (kind == (uint8_t)LAYERS) && (i < MEASURED_LAYERS); i++) {
        (void)ts_add_u32(&answer, checksums[i]);
    }
}

/* Do one request; returns why not. */
static uint8_t serve(uint8_t kind, uint8_t sequence, const uint8_t *payload, uint32_t length)
{
    ts_begin(&answer, (uint8_t)(kind | ANSWER), sequence);
    if (kind == (uint8_t)SAMPLES) {
        return keep_samples(payload, length);
    }
    if ((kind == (uint8_t)RUN) || (kind == (uint8_t)LAYERS)) {
        if (length != 4U) {
            return WRONG_LENGTH;
        }
        if (ts_u32(payload) != ts_crc32((const uint8_t *)samples, WINDOW_BYTES)) {
            return WRONG_WINDOW;
        }
        run(kind, sequence);
        return 0U;
    }
    if (length != 0U) {
        return WRONG_LENGTH;
    }
    if (kind == (uint8_t)HELLO) {
        hello();
    } else if (kind == (uint8_t)STACK) {
        (void)ts_add_u32(&answer, deepest);
    } else if (kind == (uint8_t)TICKS) {
        (void)ts_add_u32(&answer, board_ticks());
    } else {
        return WRONG_KIND;
    }
    return 0U;
}

static void handle(const uint8_t *body, uint32_t length)
{
    const uint8_t kind = body[1];
    const uint8_t sequence = body[2];
    const int again = (answered != 0) && (answer.body[1] == (kind | (uint8_t)ANSWER)) && (answer.body[2] == sequence);
    uint8_t why = 0U;
    if (body[0] != TS_VERSION) {
        why = WRONG_VERSION;
    } else if ((again == 0) || (kind == (uint8_t)HELLO)) {
        why = serve(kind, sequence, &body[TS_HEAD], length - TS_HEAD);
        answered = (why == 0U) ? 1 : 0;
    } else {
        /* it was done: send the same */
    }
    if (why == 0U) {
        ts_send(&answer, board_write);
    } else {
        refuse(sequence, why);
    }
}

void bench(void)
{
    board_init();
    for (;;) {
        const int32_t byte = board_read();
        const ts_event event = (byte < 0) ? TS_MORE : ts_feed(&receiver, (uint8_t)byte);
        if (event == TS_FRAME) {
            handle(receiver.frame.body, receiver.frame.length);
        } else if (event == TS_DAMAGED) {
            refuse(0U, (uint8_t)WRONG_FRAME);
        } else {
            /* more bytes are to come */
        }
    }
}
