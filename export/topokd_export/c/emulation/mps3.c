/* Runs the windows of a file on QEMU's mps3-an547 or an mps2 board and writes what it found, by semihosting.
 *
 * The kernels of a student are wrapped by the linker, so that every layer can be timed by SysTick and its output
 * hashed. A float pipeline (BENCH_PIPELINE, PIPELINE_WATCHED) says itself when a layer is done.
 */
#include <stddef.h>

#ifdef BENCH_PIPELINE
#include "pipeline.h"
#define LAYERS PIPELINE_LAYERS
#define CLASSES PIPELINE_CLASSES
#define VALUES (PIPELINE_LENGTH * PIPELINE_CHANNELS)
typedef float logit;
static pipeline_t pipeline;
#else
#include "student.h"
#define LAYERS STUDENT_LAYERS
#define CLASSES STUDENT_CLASSES
#define VALUES (STUDENT_LENGTH * STUDENT_CHANNELS)
typedef int8_t logit;
static student_t student;
#endif

#define STACK_TOP 0x20040000U
#define STACK_BYTES 0x4000U
#define PAINT 0xA5A5A5A5U
#define TICKS 0xFFFFFFU
#define WRAPPED 0x10000U

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };

static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010U; /* control, reload, value */

/* One window's findings, as the host reads them. */
static struct {
    int32_t status;
    uint32_t ticks;
    uint32_t stack_bytes;
    uint32_t layer_ticks[LAYERS];
    uint32_t checksums[LAYERS]; /* of a student */
    logit logits[CLASSES];
} found;

static float samples[VALUES];
#ifndef BENCH_PIPELINE
static int32_t layer;
#endif
static int32_t watching;

static uint32_t host(uint32_t operation, const void *arguments)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t open_file(const char *name, uint32_t length, uint32_t mode)
{
    const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, mode, length};
    return host(SYS_OPEN, arguments);
}

/* Bytes that were not moved. */
static uint32_t move(uint32_t operation, uint32_t file, const void *bytes, uint32_t count)
{
    const uint32_t arguments[3] = {file, (uint32_t)(uintptr_t)bytes, count};
    return host(operation, arguments);
}

static uint32_t now(void)
{
    return TICKS - systick[2];
}

#ifdef BENCH_PIPELINE

static uint32_t begun;

void pipeline_done(int32_t layer)
{
    if ((watching != 0) && (layer >= 0)) {
        found.layer_ticks[layer] = now() - begun;
    }
    begun = now();
}

static int32_t classify(void)
{
    return (int32_t)pipeline_classify(&pipeline, samples, found.logits);
}

#else

static uint32_t layer_begins(void)
{
    return now();
}

static void layer_ended(uint32_t begun, const int8_t *out, int32_t count)
{
    if ((watching != 0) && (layer < STUDENT_LAYERS)) {
        found.layer_ticks[layer] = now() - begun;
        found.checksums[layer] = tk_checksum(out, count);
    }
    layer++;
}

#include "wrapped.h"

static int32_t classify(void)
{
    return classify_samples(found.logits);
}

#endif

/* Paint the stack below this frame, run, and see how deep the paint is gone. */
static __attribute__((__noinline__)) void measure(void)
{
    volatile uint32_t *const bottom = (volatile uint32_t *)(STACK_TOP - STACK_BYTES);
    const uint32_t frame = (uint32_t)(uintptr_t)__builtin_frame_address(0) - 256U;
    uint32_t at;
    uint32_t since;
    for (at = 0U; at < ((frame - (STACK_TOP - STACK_BYTES)) / 4U); at++) {
        bottom[at] = PAINT;
    }
    watching = 0;
    since = now();
    found.status = classify();
    found.ticks = now() - since;
    for (at = 0U; bottom[at] == PAINT; at++) {
        /* untouched */
    }
    found.stack_bytes = STACK_TOP - (STACK_TOP - STACK_BYTES + (4U * at));
#ifdef BENCH_PIPELINE
    if ((systick[0] & WRAPPED) != 0U) {
        found.status = -200; /* more than the counter can hold */
    }
    systick[2] = 0U;
#endif
    watching = 1;
    found.status |= classify();
}

static void run(void)
{
    static const uint32_t done[2] = {0x20026U, 0U};
    const uint32_t windows = open_file("windows.bin", 11U, 1U);
    const uint32_t answers = open_file("found.bin", 9U, 5U);
    systick[1] = TICKS;
    while (move(SYS_READ, windows, samples, (uint32_t)sizeof(samples)) == 0U) {
        systick[2] = 0U;
        systick[0] = 5U; /* on, by the core's clock */
        measure();
        (void)move(SYS_WRITE, answers, &found, (uint32_t)sizeof(found));
    }
    (void)host(SYS_EXIT, (const void *)(uintptr_t)done[0]);
    for (;;) {
    }
}

void reset(void);
void start(void);
void start(void)
{
    run();
}

/* The coprocessors first: the compiler uses vectors wherever it likes. */
__attribute__((__naked__)) void reset(void)
{
    __asm__ volatile("ldr r0, =0xE000ED88\n\t"
                     "ldr r1, [r0]\n\t"
                     "orr r1, r1, #0xF00000\n\t"
                     "str r1, [r0]\n\t"
                     "dsb\n\t"
                     "isb\n\t"
                     "b start\n\t");
}

static void (*const vectors[2])(void) __attribute__((__section__(".vectors"), __used__)) = {
    (void (*)(void))STACK_TOP, reset};
