/* See topokd_float.h. */
#include "topokd_float.h"

/* Inlined, its loop would have too few registers. */
#if defined(__GNUC__)
#define TK_OUTLINE __attribute__((__noinline__))
#else
#define TK_OUTLINE
#endif

#define TK_PIXELS 4
#define TK_FOUR 4 /* output channels at once */

static float activated(float value, int32_t relu)
{
    return ((relu != 0) && (value < 0.0f)) ? 0.0f : value;
}

static void clear(float *values, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        values[i] = 0.0f;
    }
}

static void copy(const float *from, float *to, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        to[i] = from[i];
    }
}

/* Fill scratch rows from..to-1 with input rows first+from.., zero where there is no such row or column. */
static void fill(const tk_float_conv *layer, const float *in, float *scratch, int32_t first, int32_t from,
                 int32_t to)
{
    int32_t row;
    for (row = from; row < to; row++) {
        const int32_t source = first + row;
        float *const target = &scratch[row * layer->row_values];
        if ((source >= 0) && (source < layer->in_rows)) {
            const int32_t end = layer->lead + layer->in_row_values;
            clear(target, layer->lead);
            copy(&in[source * layer->in_row_values], &target[layer->lead], layer->in_row_values);
            clear(&target[end], layer->row_values - end);
        } else {
            clear(target, layer->row_values);
        }
    }
}

/* Move the rows that the next block needs again to the front; return how many. */
static int32_t keep(const tk_float_conv *layer, float *scratch, int32_t done)
{
    const int32_t rows = (layer->taps > layer->stride) ? (layer->taps - layer->stride) : 0;
    copy(&scratch[done * layer->stride * layer->row_values], scratch, rows * layer->row_values);
    return rows;
}

/* One input of a pixel times four weights. */
#define TK_PRODUCTS(sum, x) \
    sum##0 += (x) * w0;     \
    sum##1 += (x) * w1;     \
    sum##2 += (x) * w2;     \
    sum##3 += (x) * w3;

#define TK_LOAD(sum, at) \
    float sum##0 = (at)[0], sum##1 = (at)[1], sum##2 = (at)[2], sum##3 = (at)[3];

#define TK_STORE(sum, at) \
    (at)[0] = sum##0;     \
    (at)[1] = sum##1;     \
    (at)[2] = sum##2;     \
    (at)[3] = sum##3;

/* sums[pixel][channel] += inputs of the pixel . weights of the channel, four by four. */
static TK_OUTLINE void sum_block(const tk_float_conv *layer, const float *const inputs[TK_PIXELS],
                                 const float *weight, float sums[TK_PIXELS][TK_FOUR])
{
    int32_t segment;
    TK_LOAD(a, sums[0])
    TK_LOAD(b, sums[1])
    TK_LOAD(c, sums[2])
    TK_LOAD(d, sums[3])
    for (segment = 0; segment < layer->segments; segment++) {
        const float *at = &inputs[0][segment * layer->row_values];
        const float *bt = &inputs[1][segment * layer->row_values];
        const float *ct = &inputs[2][segment * layer->row_values];
        const float *dt = &inputs[3][segment * layer->row_values];
        const float *const end = &at[layer->segment_values];
        while (at != end) {
            const float w0 = weight[0], w1 = weight[1], w2 = weight[2], w3 = weight[3];
            const float x = *at++, y = *bt++, z = *ct++, u = *dt++;
            TK_PRODUCTS(a, x)
            TK_PRODUCTS(b, y)
            TK_PRODUCTS(c, z)
            TK_PRODUCTS(d, u)
            weight += TK_FOUR;
        }
    }
    TK_STORE(a, sums[0])
    TK_STORE(b, sums[1])
    TK_STORE(c, sums[2])
    TK_STORE(d, sums[3])
}

/* Four pixels: all their channels, four at a time. */
static void conv_pixels(const tk_float_conv *layer, const float *const inputs[TK_PIXELS],
                        float *const outputs[TK_PIXELS])
{
    const int32_t length = layer->segments * layer->segment_values;
    int32_t channel;
    for (channel = 0; channel < layer->out_channels; channel += TK_FOUR) {
        const int32_t left = layer->out_channels - channel;
        const int32_t there = (left < TK_FOUR) ? left : TK_FOUR;
        float sums[TK_PIXELS][TK_FOUR];
        int32_t pixel;
        int32_t i;
        for (pixel = 0; pixel < TK_PIXELS; pixel++) {
            copy(&layer->bias[channel], sums[pixel], TK_FOUR);
        }
        sum_block(layer, inputs, &layer->weight[channel * length], sums);
        for (pixel = 0; pixel < TK_PIXELS; pixel++) {
            for (i = 0; i < there; i++) {
                outputs[pixel][channel + i] = activated(sums[pixel][i], layer->relu);
            }
        }
    }
}

/* Four pixels at a time; where there are fewer, the last one is computed again. */
static void conv_rows(const tk_float_conv *layer, const float *in, float *out, int32_t rows)
{
    const int32_t pixels = rows * layer->out_columns;
    int32_t first;
    for (first = 0; first < pixels; first += TK_PIXELS) {
        const float *inputs[TK_PIXELS];
        float *outputs[TK_PIXELS];
        int32_t i;
        for (i = 0; i < TK_PIXELS; i++) {
            const int32_t pixel = ((first + i) < pixels) ? (first + i) : (pixels - 1);
            const int32_t row = pixel / layer->out_columns;
            const int32_t column = pixel - (row * layer->out_columns);
            inputs[i] = &in[(row * layer->stride * layer->row_values) + (column * layer->pixel_values)];
            outputs[i] = &out[pixel * layer->out_channels];
        }
        conv_pixels(layer, inputs, outputs);
    }
}

void tk_run_float_conv(const tk_float_conv *layer, const float *in, float *out, float *scratch)
{
    int32_t kept = 0;
    int32_t row;
    for (row = 0; row < layer->out_rows; row += layer->block_rows) {
        const int32_t left = layer->out_rows - row;
        const int32_t rows = (left < layer->block_rows) ? left : layer->block_rows;
        const int32_t needed = ((rows - 1) * layer->stride) + layer->taps;
        fill(layer, in, scratch, (row * layer->stride) - layer->padding, kept, needed);
        conv_rows(layer, scratch, &out[row * layer->out_columns * layer->out_channels], rows);
        if (left > rows) {
            kept = keep(layer, scratch, rows);
        }
    }
}

void tk_run_float_scale(const tk_float_scale *layer, const float *in, float *out)
{
    int32_t at = 0;
    int32_t pixel;
    for (pixel = 0; pixel < layer->pixels; pixel++) {
        int32_t channel;
        for (channel = 0; channel < layer->channels; channel++) {
            const float product = in[at] * layer->weight[channel];
            out[at] = activated(product + layer->bias[channel], layer->relu);
            at++;
        }
    }
}

void tk_run_float_add(const tk_float_add *layer, const float *first, const float *second, float *out)
{
    int32_t i;
    for (i = 0; i < layer->count; i++) {
        out[i] = activated(first[i] + second[i], layer->relu);
    }
}

void tk_run_float_mean(const tk_float_mean *layer, const float *in, float *out)
{
    int32_t channel;
    for (channel = 0; channel < layer->channels; channel++) {
        float sum = 0.0f;
        int32_t pixel;
        for (pixel = 0; pixel < layer->pixels; pixel++) {
            sum += in[(pixel * layer->channels) + channel];
        }
        out[channel] = sum / (float)layer->pixels;
    }
}
