/* Integer kernels of a topokd-edge student: no heap, no stdio, no recursion, no floating point.
 *
 * Rows are time steps, channels last, one byte each. Every kernel gives the bytes of TensorFlow Lite's
 * reference kernels. Choose how a convolution is computed by defining TK_KERNEL as one of
 *   TK_KERNEL_REF    plain, the reference's own formulas
 *   TK_KERNEL_BLK    portable, two rows by two channels at a time
 *   TK_KERNEL_SMLAD  Arm DSP extension: Cortex-M4, M7, M33
 *   TK_KERNEL_MVE    Arm Helium: Cortex-M55, M85
 *   TK_KERNEL_WASM   WebAssembly with 128-bit vectors
 * By default it is the best one that the compiler says the core has.
 */
#ifndef TOPOKD_KERNELS_H
#define TOPOKD_KERNELS_H

#include <stdint.h>

#define TK_KERNEL_REF 1
#define TK_KERNEL_BLK 2
#define TK_KERNEL_SMLAD 3
#define TK_KERNEL_MVE 4
#define TK_KERNEL_WASM 5

#ifndef TK_KERNEL
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE != 0)
#define TK_KERNEL TK_KERNEL_MVE
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && (__ARM_ARCH_PROFILE == 'M')
#define TK_KERNEL TK_KERNEL_SMLAD
#elif defined(__wasm_simd128__)
#define TK_KERNEL TK_KERNEL_WASM
#else
#define TK_KERNEL TK_KERNEL_BLK
#endif
#endif

/* Of weights: whole words are read from them. */
#if defined(__GNUC__)
#define TK_ALIGNED __attribute__((__aligned__(4)))
#else
#define TK_ALIGNED
#endif

/* A value in the rows that a convolution works on: SMLAD and WASM multiply pairs of 16-bit values. */
#if (TK_KERNEL == TK_KERNEL_SMLAD) || (TK_KERNEL == TK_KERNEL_WASM)
typedef int16_t tk_value;
#else
typedef int8_t tk_value;
#endif

/* How a 32-bit sum becomes an output byte: sum * multiplier * 2^(shift - 31) + zero_point, in low..high. */
typedef struct {
    const int32_t *multiplier; /* per channel */
    const int8_t *shift;       /* per channel, positive to the left */
    int8_t zero_point;
    int8_t low;
    int8_t high;
    uint8_t fast; /* 1: every shift is -20..-1, doubled sums fit 32 bits, and low..high is -128..127 */
} tk_rescale;

/* A convolution over time; a dense layer is one of a single row and tap. */
typedef struct {
    const int8_t *weight; /* [out_channels][taps][row_values], zero beyond in_channels */
    const int32_t *bias;  /* [out_channels], with -input_zero_point * sum(weight) added */
    tk_rescale rescale;
    int16_t in_rows;
    int16_t out_rows;
    int16_t in_channels;
    int16_t row_values; /* in_channels rounded up to a multiple of 4 */
    int16_t out_channels;
    int16_t block_rows; /* output rows per filling of the scratch */
    int8_t taps;
    int8_t stride;
    int8_t padding; /* rows before the first */
    int8_t in_zero_point;
} tk_conv;

/* Per channel x * weight + bias. */
typedef struct {
    const int8_t *weight;
    const int32_t *bias; /* with -input_zero_point * weight added */
    tk_rescale rescale;
    int16_t rows;
    int16_t channels;
} tk_scale;

/* Sum of two tensors of unlike scales; both come to a common one, 2^20 times finer, first. */
typedef struct {
    int32_t multiplier[2];
    int32_t out_multiplier;
    int32_t count;
    int8_t zero_point[2];
    int8_t shift[2];
    int8_t out_shift;
    int8_t out_zero_point;
    int8_t low;
    int8_t high;
    uint8_t fast; /* 1: input 1 only needs a shift, the others' shifts are -20..-1 */
} tk_add;

/* Mean over time; the number of rows is part of the multiplier. */
typedef struct {
    int32_t multiplier;
    int16_t rows;
    int16_t channels;
    int8_t in_zero_point;
    int8_t shift;
    int8_t out_zero_point;
} tk_mean;

/* `out` may be `in` where the generated code does so; `scratch` holds (block_rows - 1) * stride + taps rows. */
void tk_run_conv(const tk_conv *layer, const int8_t *in, int8_t *out, tk_value *scratch);
void tk_run_scale(const tk_scale *layer, const int8_t *in, int8_t *out);
void tk_run_add(const tk_add *layer, const int8_t *first, const int8_t *second, int8_t *out);
void tk_run_mean(const tk_mean *layer, const int8_t *in, int8_t *out);

/* FNV-1a, for comparing what a layer gave. */
uint32_t tk_checksum(const int8_t *bytes, int32_t count);

#endif
