/* Made by topokd-edge; see student.h. */
#include "student.h"

#include <float.h>
#include <stddef.h>

/* The memory is what the export said. */
typedef char student_arena_is_as_planned[(sizeof(((student_t *)0)->arena) == @ARENA_BYTES@U) ? 1 : -1];
#ifndef STUDENT_DEBUG
typedef char student_memory_is_as_planned[(sizeof(student_t) <= @RAM_BYTES@U) ? 1 : -1];
#endif
typedef char student_int_has_32_bits[(sizeof(int) >= 4U) ? 1 : -1];
typedef char student_floats_are_ieee[((sizeof(float) == 4U) && (FLT_MANT_DIG == 24)) ? 1 : -1];

#ifdef STUDENT_DEBUG
#define STUDENT_CHECK(student, index, bytes, count) \
    ((student)->checksums[(index)] = tk_checksum((bytes), (count)))
#else
#define STUDENT_CHECK(student, index, bytes, count) ((void)0)
#endif

@CONSTANTS@

student_status student_invoke(student_t *student, const int8_t in[STUDENT_LENGTH * STUDENT_CHANNELS],
                              int8_t out[STUDENT_CLASSES])
{
    if ((student == NULL) || (in == NULL) || (out == NULL)) {
        return STUDENT_NULL;
    }
@CALLS@
    return STUDENT_OK;
}

/* Of a float: without its sign, infinity is 0x7F800000 and NaN is above; this survives -ffast-math. */
static uint32_t magnitude(float value)
{
    union {
        float value;
        uint32_t bits;
    } same;
    same.value = value;
    return same.bits & 0x7FFFFFFFU;
}

/* Nearest integer to level, ties to even, plus the zero point, in -128..127. */
static int8_t rounded(float level, int32_t zero_point)
{
    /* Beyond 300 levels everything saturates; within, the conversion is defined and the rest exact. */
    const float kept = (level > 300.0f) ? 300.0f : ((level < -300.0f) ? -300.0f : level);
    int32_t whole = (int32_t)kept;
    const float rest = kept - (float)whole;
    if ((rest > 0.5f) || ((rest == 0.5f) && ((whole & 1) != 0))) {
        whole += 1;
    } else if ((rest < -0.5f) || ((rest == -0.5f) && ((whole & 1) != 0))) {
        whole -= 1;
    } else {
        /* the whole part is the nearest */
    }
    whole += zero_point;
    return (int8_t)((whole < -128) ? -128 : ((whole > 127) ? 127 : whole));
}

student_status student_quantise_with(const float *values, int8_t *out, uint32_t count, float scale,
                                     int32_t zero_point)
{
    uint32_t i;
    if ((values == NULL) || (out == NULL)) {
        return STUDENT_NULL;
    }
    for (i = 0U; i < count; i++) {
        if (magnitude(values[i]) > 0x7F800000U) {
            return STUDENT_NOT_FINITE;
        }
    }
    for (i = 0U; i < count; i++) {
        out[i] = rounded(values[i] / scale, zero_point);
    }
    return STUDENT_OK;
}

student_status student_quantise(const float *values, int8_t *out, uint32_t count)
{
    return student_quantise_with(values, out, count, STUDENT_INPUT_SCALE, STUDENT_INPUT_ZERO_POINT);
}

student_status student_init(student_t *student, uint32_t step)
{
    if (student == NULL) {
        return STUDENT_NULL;
    }
    if ((step < 1U) || (step > (uint32_t)STUDENT_LENGTH)) {
        return STUDENT_WRONG_STEP;
    }
    student->step = step;
    return student_gap(student);
}

student_status student_push(student_t *student, const float sample[STUDENT_CHANNELS])
{
    static const float mean[STUDENT_CHANNELS] = {@MEAN@};
    static const float std[STUDENT_CHANNELS] = {@STD@};
    uint32_t row;
    uint32_t channel;
    if ((student == NULL) || (sample == NULL)) {
        return STUDENT_NULL;
    }
    for (channel = 0U; channel < (uint32_t)STUDENT_CHANNELS; channel++) {
        if (magnitude(sample[channel]) >= 0x7F800000U) {
            return STUDENT_NOT_FINITE;
        }
    }
    if (student->filled == (uint32_t)STUDENT_LENGTH) { /* the window was there: move on */
        student->first = (student->first + student->step) % (uint32_t)STUDENT_LENGTH;
        student->filled -= student->step;
    }
    row = (student->first + student->filled) % (uint32_t)STUDENT_LENGTH;
    for (channel = 0U; channel < (uint32_t)STUDENT_CHANNELS; channel++) {
        const float normalised = (sample[channel] - mean[channel]) / std[channel];
        student->ring[(row * (uint32_t)STUDENT_CHANNELS) + channel] =
            rounded(normalised / STUDENT_INPUT_SCALE, STUDENT_INPUT_ZERO_POINT);
    }
    student->filled += 1U;
    return (student->filled == (uint32_t)STUDENT_LENGTH) ? STUDENT_WINDOW : STUDENT_OK;
}

student_status student_gap(student_t *student)
{
    if (student == NULL) {
        return STUDENT_NULL;
    }
    student->first = 0U;
    student->filled = 0U;
    return STUDENT_OK;
}

student_status student_classify(student_t *student, int8_t logits[STUDENT_CLASSES], int32_t *label)
{
    int8_t own[STUDENT_CLASSES];
    int8_t *const out = (logits == NULL) ? own : logits;
    int8_t *window;
    uint32_t head;
    int32_t best = 0;
    int32_t i;
    if ((student == NULL) || (label == NULL)) {
        return STUDENT_NULL;
    }
    if (student->filled != (uint32_t)STUDENT_LENGTH) {
        return STUDENT_NO_WINDOW;
    }
    /* The window in order of time, where the arena has room for it. */
    window = &student->arena.bytes[@INPUT_OFFSET@];
    head = student->first * (uint32_t)STUDENT_CHANNELS;
    for (i = 0; i < (STUDENT_LENGTH * STUDENT_CHANNELS); i++) {
        window[i] = student->ring[head];
        head = (head == (sizeof(student->ring) - 1U)) ? 0U : (head + 1U);
    }
    (void)student_invoke(student, window, out);
    for (i = 1; i < STUDENT_CLASSES; i++) {
        best = (out[i] > out[best]) ? i : best;
    }
    *label = best;
    return STUDENT_OK;
}

float student_logit(int8_t quantised)
{
    return (float)(quantised - STUDENT_OUTPUT_ZERO_POINT) * STUDENT_OUTPUT_SCALE;
}

const char *student_class_name(int32_t label)
{
    static const char *const names[STUDENT_CLASSES] = {STUDENT_CLASS_NAMES};
    return ((label >= 0) && (label < STUDENT_CLASSES)) ? names[label] : NULL;
}

#ifdef STUDENT_DEBUG
const char *student_layer_name(int32_t index)
{
    static const char *const names[STUDENT_LAYERS] = {
    @LAYER_NAMES@};
    return ((index >= 0) && (index < STUDENT_LAYERS)) ? names[index] : NULL;
}

uint32_t student_layer_checksum(const student_t *student, int32_t index)
{
    const int known = (student != NULL) && (index >= 0) && (index < STUDENT_LAYERS);
    return (known != 0) ? student->checksums[index] : 0U;
}
#endif
