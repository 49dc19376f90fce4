/* From a 32-bit sum to a byte, rounding as TensorFlow Lite does (twice). */
#ifndef TOPOKD_ARITHMETIC_H
#define TOPOKD_ARITHMETIC_H

#include "topokd_kernels.h"

/* Functions that would only grow the code, or crowd the registers, where they are inlined. */
#if defined(__GNUC__)
#define TK_OUTLINE __attribute__((__noinline__))
#else
#define TK_OUTLINE
#endif

typedef char tk_int_has_32_bits[(sizeof(int) >= 4U) ? 1 : -1];
typedef char tk_shift_of_negatives_is_arithmetic[(((int32_t)-1 >> 1) == -1) ? 1 : -1];

static inline int32_t tk_clamp(int32_t x, int32_t low, int32_t high)
{
    const int32_t y = (x < low) ? low : x;
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

/* tk_high_multiply of half of `doubled`. */
static inline int32_t tk_high_half(int32_t doubled, int32_t multiplier)
{
#if defined(__arm__) && defined(__ARM_FEATURE_DSP)
    int32_t x;
    __asm__("smmulr %0, %1, %2" : "=r"(x) : "r"(doubled), "r"(multiplier));
    return x;
#else
    const int64_t product = (int64_t)doubled * multiplier;
    return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
#endif
}

/* The whole in few instructions, where the generator allows it: from the doubled sum, exponent 1..20.
 *
 * Adding -1 to negatives and a half to all, then shifting, is tk_divide; and what is to be added after a shift
 * can be added before it: see tk_quick_offset.
 */
static inline int32_t tk_quick(int32_t doubled, int32_t multiplier, int32_t exponent, int32_t offset)
{
    const int32_t x = tk_high_half(doubled, multiplier);
    return (x + (x >> 31) + offset) >> exponent;
}

static inline int32_t tk_quick_offset(int32_t zero_point, int32_t exponent)
{
    return ((2 * zero_point) + 1) * ((int32_t)1 << (exponent - 1));
}

static inline int8_t tk_byte(int32_t x)
{
#if defined(__arm__) && defined(__ARM_FEATURE_SAT)
    int32_t y;
    __asm__("ssat %0, #8, %1" : "=r"(y) : "r"(x));
    return (int8_t)y;
#else
    return (int8_t)tk_clamp(x, -128, 127);
#endif
}

#endif
