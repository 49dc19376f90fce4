/* What differs between the kernels: how input rows are widened, and how a block of outputs is summed. */
#ifndef TOPOKD_DOT_H
#define TOPOKD_DOT_H

#include "topokd_arithmetic.h"

#if (TK_KERNEL == TK_KERNEL_SMLAD) || (TK_KERNEL == TK_KERNEL_MVE)
#define TK_ROWS 4
#define TK_CHANNELS 1
#elif TK_KERNEL == TK_KERNEL_WASM
#define TK_ROWS 4
#define TK_CHANNELS 2
#else
#define TK_ROWS 2
#define TK_CHANNELS 2
#endif

/* A block of outputs: sums[channel][row] += rows[row] . weight[channel]. */
typedef struct {
    const tk_value *rows[TK_ROWS];
    const int8_t *weight[TK_CHANNELS];
    const int8_t *end; /* of weight[0]; a multiple of 4 from it */
    int32_t sums[TK_CHANNELS][TK_ROWS];
} tk_block;

#if TK_KERNEL == TK_KERNEL_SMLAD

#if defined(__BYTE_ORDER__) && (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
#error "the SMLAD kernel needs little-endian bytes"
#endif

/* Two 16-bit values; and four bytes at any address, which must not be loaded by pairs of words. */
typedef uint32_t __attribute__((__may_alias__)) tk_word;
typedef uint32_t __attribute__((__may_alias__, __aligned__(1))) tk_bytes;

/* Four values are kept in the order 0, 2, 1, 3, in which sxtb16 gives the weights too. */
static inline void tk_widen(const int8_t *in, int32_t channels, tk_value *out)
{
    tk_word *words = (tk_word *)(void *)out;
    int32_t left = channels;
    for (; left >= 4; left -= 4) {
        const uint32_t bytes = *(const tk_bytes *)(const void *)in;
        __asm__("sxtb16 %0, %1" : "=r"(words[0]) : "r"(bytes));
        __asm__("sxtb16 %0, %1, ror #8" : "=r"(words[1]) : "r"(bytes));
        in += 4;
        words += 2;
    }
    if (left > 0) {
        tk_value *const last = (tk_value *)(void *)words;
        last[0] = in[0];
        last[2] = (tk_value)((left > 1) ? in[1] : 0);
        last[1] = (tk_value)((left > 2) ? in[2] : 0);
        last[3] = 0;
    }
}

/* One channel of four rows times four values: 16 products in 15 instructions.
 * r1-r4 rows, r5 weights, r0 their end, r8-r11 sums, the others are passing. */
#define TK_FOUR_ROWS                   \
    "ldr r12, [r5], #4\n\t"              \
    "ldrd r6, r7, [r1], #8\n\t"          \
    "sxtb16 lr, r12\n\t"                 \
    "sxtb16 r12, r12, ror #8\n\t"        \
    "smlad r8, r6, lr, r8\n\t"           \
    "smlad r8, r7, r12, r8\n\t"          \
    "ldrd r6, r7, [r2], #8\n\t"          \
    "smlad r9, r6, lr, r9\n\t"           \
    "smlad r9, r7, r12, r9\n\t"          \
    "ldrd r6, r7, [r3], #8\n\t"          \
    "smlad r10, r6, lr, r10\n\t"         \
    "smlad r10, r7, r12, r10\n\t"        \
    "ldrd r6, r7, [r4], #8\n\t"          \
    "smlad r11, r6, lr, r11\n\t"         \
    "smlad r11, r7, r12, r11\n\t"

/* r7 may be the frame pointer, which no clobber list may name: it is saved by hand. */
static TK_OUTLINE void tk_sum(tk_block *block)
{
    register tk_block *base __asm__("r0") = block;
    __asm__ volatile("push {r0, r7}\n\t"
                     "ldm r0, {r1, r2, r3, r4, r5, r6, r8, r9, r10, r11}\n\t"
                     "mov r0, r6\n\t"
                     "sub r6, r6, r5\n\t"
                     "tst r6, #4\n\t"
                     "beq 2f\n\t" TK_FOUR_ROWS
                     "cmp r5, r0\n\t"
                     "beq 3f\n"
                     "2:\n\t" TK_FOUR_ROWS TK_FOUR_ROWS
                     "cmp r5, r0\n\t"
                     "bne 2b\n"
                     "3:\n\t"
                     "pop {r0, r7}\n\t"
                     "add r6, r0, #24\n\t"
                     "stm r6, {r8, r9, r10, r11}\n\t"
                     : "+r"(base)
                     :
                     : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");
}

#else

static inline void tk_widen(const int8_t *in, int32_t channels, tk_value *out)
{
    int32_t i;
    for (i = 0; i < channels; i++) {
        out[i] = in[i];
    }
    for (; (i & 3) != 0; i++) {
        out[i] = 0;
    }
}

#if TK_KERNEL == TK_KERNEL_MVE

#include <arm_mve.h>

/* Sixteen values at a time; lanes beyond the end are zero. */
static TK_OUTLINE void tk_sum(tk_block *block)
{
    const int8_t *w = block->weight[0];
    const int8_t *a = block->rows[0];
    const int8_t *b = block->rows[1];
    const int8_t *c = block->rows[2];
    const int8_t *d = block->rows[3];
    int32_t left = (int32_t)(block->end - w);
    int32_t sum_a = block->sums[0][0];
    int32_t sum_b = block->sums[0][1];
    int32_t sum_c = block->sums[0][2];
    int32_t sum_d = block->sums[0][3];
    for (; left > 0; left -= 16) {
        const mve_pred16_t there = vctp8q((uint32_t)left);
        const int8x16_t weights = vldrbq_z_s8(w, there);
        sum_a = vmladavaq_p_s8(sum_a, weights, vldrbq_z_s8(a, there), there);
        sum_b = vmladavaq_p_s8(sum_b, weights, vldrbq_z_s8(b, there), there);
        sum_c = vmladavaq_p_s8(sum_c, weights, vldrbq_z_s8(c, there), there);
        sum_d = vmladavaq_p_s8(sum_d, weights, vldrbq_z_s8(d, there), there);
        w += 16;
        a += 16;
        b += 16;
        c += 16;
        d += 16;
    }
    block->sums[0][0] = sum_a;
    block->sums[0][1] = sum_b;
    block->sums[0][2] = sum_c;
    block->sums[0][3] = sum_d;
}

#elif TK_KERNEL == TK_KERNEL_WASM

#include <wasm_simd128.h>

/* Every row times every channel, eight values each; pairs of products are added at once. */
static inline void tk_eight(v128_t sums[TK_CHANNELS][TK_ROWS], const v128_t values[TK_ROWS],
                            const v128_t weights[TK_CHANNELS])
{
    int32_t channel;
    int32_t row;
    for (channel = 0; channel < TK_CHANNELS; channel++) {
        for (row = 0; row < TK_ROWS; row++) {
            const v128_t products = wasm_i32x4_dot_i16x8(values[row], weights[channel]);
            sums[channel][row] = wasm_i32x4_add(sums[channel][row], products);
        }
    }
}

/* The sums of a's lanes and of b's, each in two halves. */
static inline v128_t tk_halves(v128_t a, v128_t b)
{
    return wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
}

static inline void tk_sum(tk_block *block)
{
    const int32_t length = (int32_t)(block->end - block->weight[0]);
    v128_t sums[TK_CHANNELS][TK_ROWS];
    v128_t values[TK_ROWS];
    v128_t weights[TK_CHANNELS];
    int32_t channel;
    int32_t row;
    int32_t i = 0;
    for (channel = 0; channel < TK_CHANNELS; channel++) {
        for (row = 0; row < TK_ROWS; row++) {
            sums[channel][row] = wasm_i32x4_const_splat(0);
        }
    }
    for (; (i + 8) <= length; i += 8) {
        for (row = 0; row < TK_ROWS; row++) {
            values[row] = wasm_v128_load(&block->rows[row][i]);
        }
        for (channel = 0; channel < TK_CHANNELS; channel++) {
            weights[channel] = wasm_i16x8_load8x8(&block->weight[channel][i]);
        }
        tk_eight(sums, values, weights);
    }
    if (i != length) { /* four are left, and four zeros */
        for (row = 0; row < TK_ROWS; row++) {
            values[row] = wasm_v128_load64_zero(&block->rows[row][i]);
        }
        for (channel = 0; channel < TK_CHANNELS; channel++) {
            weights[channel] = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(&block->weight[channel][i]));
        }
        tk_eight(sums, values, weights);
    }
    for (channel = 0; channel < TK_CHANNELS; channel++) {
        const v128_t front = tk_halves(sums[channel][0], sums[channel][1]);
        const v128_t back = tk_halves(sums[channel][2], sums[channel][3]);
        const v128_t whole = wasm_i32x4_add(wasm_i32x4_shuffle(front, back, 0, 1, 4, 5),
                                            wasm_i32x4_shuffle(front, back, 2, 3, 6, 7));
        wasm_v128_store(block->sums[channel], wasm_i32x4_add(wasm_v128_load(block->sums[channel]), whole));
    }
}

#elif TK_KERNEL != TK_KERNEL_REF

/* Where the compiler has vectors it makes better use of the plain loop. */
#if !defined(__SSE2__) && !defined(__ARM_NEON) && !defined(__wasm_simd128__) && !defined(__ARM_FEATURE_MVE)
#define TK_SCALAR
#endif

#if defined(TK_SCALAR)
#define TK_STEP 4 /* by hand: compilers for small cores do not */
#else
#define TK_STEP 1
#endif

#define TK_FOUR_PRODUCTS(i) \
    wa += w[i] * a[i];      \
    wb += w[i] * b[i];      \
    va += v[i] * a[i];      \
    vb += v[i] * b[i];

static TK_OUTLINE void tk_sum(tk_block *block)
{
    const tk_value *a = block->rows[0];
    const tk_value *b = block->rows[1];
    const int8_t *w = block->weight[0];
    const int8_t *v = block->weight[1];
    const int8_t *const end = block->end;
    int32_t wa = block->sums[0][0];
    int32_t wb = block->sums[0][1];
    int32_t va = block->sums[1][0];
    int32_t vb = block->sums[1][1];
    while (w != end) {
        TK_FOUR_PRODUCTS(0)
#if TK_STEP == 4
        TK_FOUR_PRODUCTS(1)
        TK_FOUR_PRODUCTS(2)
        TK_FOUR_PRODUCTS(3)
#endif
        a += TK_STEP;
        b += TK_STEP;
        w += TK_STEP;
        v += TK_STEP;
    }
    block->sums[0][0] = wa;
    block->sums[0][1] = wb;
    block->sums[1][0] = va;
    block->sums[1][1] = vb;
}

#endif

#endif

#endif
