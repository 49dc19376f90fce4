/* From a 32-bit sum to a byte, rounding as TensorFlow Lite does (twice). */
#ifndef TOPOKD_ARITHMETIC_H
#define TOPOKD_ARITHMETIC_H

#include "topokd_kernels.h"

typedef char tk_shift_of_negatives_is_arithmetic[(((int32_t)-1 >> 1) == -1) ? 1 : -1];

static inline int32_t tk_clamp(int32_t x, int32_t low, int32_t high)
{
    int32_t y = (x < low) ? low : x;
    return (y > high) ? high : y;
}

/* a * b / 2^31, rounded to nearest, halves upwards. */
static inline int32_t tk_high_multiply(int32_t a, int32_t b)
{
    return (int32_t)((((int64_t)a * b) + ((int64_t)1 << 30)) >> 31);
}

/* x / 2^exponent, rounded to nearest, halves away from zero; exponent >= 0. */
static inline int32_t tk_divide(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)(((int64_t)1 << exponent) - 1);
    const int32_t threshold = (mask >> 1) + ((x < 0) ? 1 : 0);
    return (x >> exponent) + (((x & mask) > threshold) ? 1 : 0);
}

/* x * multiplier * 2^(shift - 31); the generator has seen to it that nothing overflows. */
static inline int32_t tk_multiply(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        return tk_high_multiply(x * ((int32_t)1 << shift), multiplier);
    }
    return tk_divide(tk_high_multiply(x, multiplier), -shift);
}

static inline int32_t tk_rescaled(int32_t sum, const tk_rescale *to, int32_t channel)
{
    const int32_t y = tk_multiply(sum, to->multiplier[channel], to->shift[channel]);
    return tk_clamp(y + to->zero_point, to->low, to->high);
}

#endif
