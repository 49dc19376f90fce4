/* Float kernels of a topokd-edge pipeline: no heap, no stdio, no recursion, no mathematics library.
 *
 * Tensors are rows of columns of channels, 32-bit floats. A signal has a column for its one, and a row for each
 * time step. Every sum is added in one order, so that without contraction (-ffp-contract=off) every IEEE machine
 * gives the same bits.
 */
#ifndef TOPOKD_FLOAT_H
#define TOPOKD_FLOAT_H

#include <stdint.h>

/* A convolution; a dense layer is one of a single row, column and tap. */
typedef struct {
    const float *weight;    /* [out_channels / 4][taps of rows, of columns, in_channels][4], zero beyond */
    const float *bias;      /* [out_channels], zero beyond up to a multiple of 4 */
    int32_t in_rows;
    int32_t in_row_values;  /* columns * channels of the input */
    int32_t out_rows;
    int32_t out_columns;
    int32_t out_channels;
    int32_t block_rows;     /* output rows per filling of the scratch */
    int32_t row_values;     /* of a row in the scratch: with the columns of padding */
    int32_t lead;           /* values of padding before a row */
    int32_t pixel_values;   /* from one output's inputs to the next one's along a row: stride * channels */
    int32_t taps;           /* rows that an output reads */
    int32_t stride;         /* in rows */
    int32_t padding;        /* rows before the first */
    int32_t segments;       /* pieces that an output's inputs lie in, row_values apart ... */
    int32_t segment_values; /* ... and how long each is */
    int32_t relu;
} tk_float_conv;

/* Per channel x * weight + bias, over rows * columns pixels. */
typedef struct {
    const float *weight;
    const float *bias;
    int32_t pixels;
    int32_t channels;
    int32_t relu;
} tk_float_scale;

/* Sum of two tensors. */
typedef struct {
    int32_t count;
    int32_t relu;
} tk_float_add;

/* Mean over all pixels. */
typedef struct {
    int32_t pixels;
    int32_t channels;
} tk_float_mean;

/* `out` may be `in` where the generated code does so; `scratch` holds (block_rows - 1) * stride + taps rows. */
void tk_run_float_conv(const tk_float_conv *layer, const float *in, float *out, float *scratch);
void tk_run_float_scale(const tk_float_scale *layer, const float *in, float *out);
void tk_run_float_add(const tk_float_add *layer, const float *first, const float *second, float *out);
void tk_run_float_mean(const tk_float_mean *layer, const float *in, float *out);

#endif
