/* A student made by topokd-edge: int8, @LENGTH@ samples of @CHANNELS@ channels to @CLASSES@ classes.
 *
 * No heap, no stdio, no recursion, no mathematics library. All memory is one `student_t`, which the app
 * declares where it likes (static is right on a microcontroller).
 *
 *     static student_t student;
 *     student_init(&student, STUDENT_DEFAULT_STEP);
 *     for every sample, in the units of STUDENT_UNITS:
 *         if (student_push(&student, sample) == STUDENT_WINDOW) {
 *             student_classify(&student, logits, &label);   -> student_class_name(label)
 *         }
 *     where samples were lost: student_gap(&student);
 */
#ifndef STUDENT_H
#define STUDENT_H

#include <stdint.h>

#include "topokd_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define STUDENT_CHANNELS @CHANNELS@
#define STUDENT_LENGTH @LENGTH@
#define STUDENT_CLASSES @CLASSES@
#define STUDENT_LAYERS @LAYERS@
#define STUDENT_RATE_HZ @RATE_HZ@
#define STUDENT_DEFAULT_STEP @STEP@

/* real = (q - zero point) * scale */
#define STUDENT_INPUT_SCALE @INPUT_SCALE@
#define STUDENT_INPUT_ZERO_POINT @INPUT_ZERO_POINT@
#define STUDENT_OUTPUT_SCALE @OUTPUT_SCALE@
#define STUDENT_OUTPUT_ZERO_POINT @OUTPUT_ZERO_POINT@

#define STUDENT_CLASS_NAMES @CLASS_NAMES@
#define STUDENT_CHANNEL_NAMES @CHANNEL_NAMES@
#define STUDENT_UNITS @UNITS@

#define STUDENT_ARENA_BYTES @ARENA_BYTES@
#define STUDENT_SCRATCH_VALUES @SCRATCH_VALUES@

typedef enum {
    STUDENT_OK = 0,
    STUDENT_WINDOW = 1,          /* a window is complete: call student_classify */
    STUDENT_NULL = -1,           /* a pointer is NULL */
    STUDENT_NOT_FINITE = -2,     /* a value is NaN (or infinite, in a sample): nothing was taken */
    STUDENT_WRONG_STEP = -3,     /* a step outside 1..STUDENT_LENGTH */
    STUDENT_NO_WINDOW = -4       /* no window is complete yet */
} student_status;

/* All memory of a student. The fields are its own business. */
typedef struct {
    union {
        uint64_t alignment;
        int8_t bytes[STUDENT_ARENA_BYTES];
    } arena;
    union {
        uint64_t alignment;
        tk_value values[STUDENT_SCRATCH_VALUES];
    } scratch;
    int8_t ring[STUDENT_LENGTH * STUDENT_CHANNELS];
    uint32_t first;  /* row of the ring where the window begins */
    uint32_t filled; /* rows of the window that are there */
    uint32_t step;
#ifdef STUDENT_DEBUG
    uint32_t checksums[STUDENT_LAYERS]; /* of every layer's output, last run */
#endif
} student_t;

/* Empty the window. The next one begins `step` samples after the one before, 1..STUDENT_LENGTH. */
student_status student_init(student_t *student, uint32_t step);

/* Take one sample, one value per channel, not normalised: STUDENT_WINDOW when it completes a window. */
student_status student_push(student_t *student, const float sample[STUDENT_CHANNELS]);

/* Say that samples were lost here: no window crosses this place. */
student_status student_gap(student_t *student);

/* Classify the complete window. `logits` may be NULL. Can be repeated until the next push. */
student_status student_classify(student_t *student, int8_t logits[STUDENT_CLASSES], int32_t *label);

/* Run the network alone: a quantised window, row by row, to quantised logits. */
student_status student_invoke(student_t *student, const int8_t in[STUDENT_LENGTH * STUDENT_CHANNELS],
                              int8_t out[STUDENT_CLASSES]);

/* Quantise normalised values: to nearest, ties to even, saturating; NaN gives STUDENT_NOT_FINITE. */
student_status student_quantise(const float *values, int8_t *out, uint32_t count);

/* The same with a scale and zero point of one's own. */
student_status student_quantise_with(const float *values, int8_t *out, uint32_t count, float scale,
                                     int32_t zero_point);

/* A logit as a real number. */
float student_logit(int8_t quantised);

/* UTF-8; NULL when there is no such class. */
const char *student_class_name(int32_t label);

#ifdef STUDENT_DEBUG
/* Name of a layer, 0..STUDENT_LAYERS-1, and checksum of its output in the last run; NULL and 0 beyond. */
const char *student_layer_name(int32_t index);
uint32_t student_layer_checksum(const student_t *student, int32_t index);
#endif

#ifdef __cplusplus
}
#endif

#endif
