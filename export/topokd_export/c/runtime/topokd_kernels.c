/* See topokd_kernels.h. */
#include "topokd_kernels.h"

#include "topokd_arithmetic.h"
#include "topokd_dot.h"

/* x * multiplier * 2^(shift - 31); the generator has seen to it that nothing overflows. */
static TK_OUTLINE int32_t tk_multiply(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        return tk_high_multiply(x * ((int32_t)1 << shift), multiplier);
    }
    return tk_divide(tk_high_multiply(x, multiplier), -shift);
}

static int32_t tk_rescaled(int32_t sum, const tk_rescale *to, int32_t channel)
{
    const int32_t y = tk_multiply(sum, to->multiplier[channel], to->shift[channel]);
    return tk_clamp(y + to->zero_point, to->low, to->high);
}

/* Fill scratch rows from..to-1 with input rows first+from.., the zero point where there is no such row. */
static void fill(const tk_conv *layer, const int8_t *in, tk_value *scratch, int32_t first, int32_t from,
                 int32_t to)
{
    int32_t row;
    for (row = from; row < to; row++) {
        const int32_t source = first + row;
        tk_value *const target = &scratch[row * layer->row_values];
        if ((source >= 0) && (source < layer->in_rows)) {
            tk_widen(&in[source * layer->in_channels], layer->in_channels, target);
        } else {
            int32_t i;
            for (i = 0; i < layer->row_values; i++) {
                target[i] = (tk_value)layer->in_zero_point;
            }
        }
    }
}

/* Move the rows that the next block needs again to the front; return how many. */
static int32_t keep(const tk_conv *layer, tk_value *scratch, int32_t done)
{
    const int32_t rows = (layer->taps > layer->stride) ? (layer->taps - layer->stride) : 0;
    const tk_value *const from = &scratch[done * layer->stride * layer->row_values];
    int32_t i;
    for (i = 0; i < (rows * layer->row_values); i++) {
        scratch[i] = from[i];
    }
    return rows;
}

#if TK_KERNEL == TK_KERNEL_REF

static void conv_rows(const tk_conv *layer, const tk_value *in, int8_t *out, int32_t rows)
{
    const int32_t length = layer->taps * layer->row_values;
    int32_t row;
    for (row = 0; row < rows; row++) {
        const tk_value *const x = &in[row * layer->stride * layer->row_values];
        int32_t channel;
        for (channel = 0; channel < layer->out_channels; channel++) {
            const int8_t *const w = &layer->weight[channel * length];
            int32_t sum = layer->bias[channel];
            int32_t i;
            for (i = 0; i < length; i++) {
                sum += x[i] * w[i];
            }
            out[(row * layer->out_channels) + channel] = (int8_t)tk_rescaled(sum, &layer->rescale, channel);
        }
    }
}

#else

/* Write one channel of a block; at[row] is where, from out. */
static void put(const tk_rescale *to, int32_t channel, const int32_t sums[TK_ROWS], int8_t *out,
                       const int32_t at[TK_ROWS])
{
    int32_t row;
    if (to->fast != 0U) {
        const int32_t multiplier = to->multiplier[channel];
        const int32_t exponent = -to->shift[channel];
        const int32_t offset = tk_quick_offset(to->zero_point, exponent);
        for (row = 0; row < TK_ROWS; row++) {
            out[at[row]] = tk_byte(tk_quick(2 * sums[row], multiplier, exponent, offset));
        }
    } else {
        for (row = 0; row < TK_ROWS; row++) {
            out[at[row]] = (int8_t)tk_rescaled(sums[row], to, channel);
        }
    }
}

/* A block of rows and channels at a time; where there are fewer, the last one is computed again. */
static void conv_rows(const tk_conv *layer, const tk_value *in, int8_t *out, int32_t rows)
{
    const int32_t length = layer->taps * layer->row_values;
    const int32_t channels = layer->out_channels;
    int32_t row;
    for (row = 0; row < rows; row += TK_ROWS) {
        tk_block block;
        int32_t at[TK_ROWS];
        int32_t channel;
        int32_t i;
        for (i = 0; i < TK_ROWS; i++) {
            const int32_t there = ((row + i) < rows) ? (row + i) : (rows - 1);
            block.rows[i] = &in[there * layer->stride * layer->row_values];
            at[i] = there * channels;
        }
        block.end = layer->weight;
        for (channel = 0; channel < channels; channel += TK_CHANNELS) {
            const int32_t last = ((channel + TK_CHANNELS) <= channels) ? (TK_CHANNELS - 1) : 0;
            block.weight[0] = &layer->weight[channel * length];
            block.weight[TK_CHANNELS - 1] = &block.weight[0][last * length];
            block.end = &block.weight[0][length];
            for (i = 0; i < TK_ROWS; i++) {
                block.sums[0][i] = layer->bias[channel];
                block.sums[TK_CHANNELS - 1][i] = layer->bias[channel + last];
            }
            tk_sum(&block);
            put(&layer->rescale, channel, block.sums[0], &out[channel], at);
            if (TK_CHANNELS > 1) {
                put(&layer->rescale, channel + last, block.sums[TK_CHANNELS - 1], &out[channel + last], at);
            }
        }
    }
}

#endif

void tk_run_conv(const tk_conv *layer, const int8_t *in, int8_t *out, tk_value *scratch)
{
    int32_t kept = 0;
    int32_t row;
    for (row = 0; row < layer->out_rows; row += layer->block_rows) {
        const int32_t left = layer->out_rows - row;
        const int32_t rows = (left < layer->block_rows) ? left : layer->block_rows;
        const int32_t needed = ((rows - 1) * layer->stride) + layer->taps;
        fill(layer, in, scratch, (row * layer->stride) - layer->padding, kept, needed);
        conv_rows(layer, scratch, &out[row * layer->out_channels], rows);
        if (left > rows) {
            kept = keep(layer, scratch, rows);
        }
    }
}

#if TK_KERNEL != TK_KERNEL_REF

static void quick_scale(const tk_scale *layer, const int8_t *in, int8_t *out)
{
    const int32_t channels = layer->channels;
    const int32_t count = layer->rows * channels;
    const int8_t *const in_end = &in[count];
    int8_t *const out_end = &out[count];
    int32_t channel;
    for (channel = 0; channel < channels; channel++) {
        const int32_t weight = 2 * layer->weight[channel];
        const int32_t bias = 2 * layer->bias[channel];
        const int32_t multiplier = layer->rescale.multiplier[channel];
        const int32_t exponent = -layer->rescale.shift[channel];
        const int32_t offset = tk_quick_offset(layer->rescale.zero_point, exponent);
        int32_t i = channel - count;
        do {
            out_end[i] = tk_byte(tk_quick((in_end[i] * weight) + bias, multiplier, exponent, offset));
            i += channels;
        } while (i < 0);
    }
}

static void quick_add(const tk_add *layer, const int8_t *first, const int8_t *second, int8_t *out)
{
    const int32_t multiplier = layer->multiplier[0];
    const int32_t exponent = -layer->shift[0];
    const int32_t half = tk_quick_offset(0, exponent);
    const int32_t out_exponent = -layer->out_shift;
    const int32_t offset = tk_quick_offset(layer->out_zero_point, out_exponent);
    const int32_t a_zero = -layer->zero_point[0] * ((int32_t)1 << 21);
    const int32_t b_zero = -layer->zero_point[1] * ((int32_t)1 << 20);
    const int32_t out_multiplier = layer->out_multiplier;
    const int8_t *const first_end = &first[layer->count];
    const int8_t *const second_end = &second[layer->count];
    int8_t *const out_end = &out[layer->count];
    int32_t i = -layer->count;
    do {
        /* Twice the first input, scaled; the second one's multiplier is a half, so nothing is rounded. */
        const int32_t a = tk_quick((first_end[i] * ((int32_t)1 << 21)) + a_zero, multiplier, exponent, half);
        const int32_t b = (second_end[i] * ((int32_t)1 << 20)) + b_zero;
        out_end[i] = tk_byte(tk_quick((2 * a) + b, out_multiplier, out_exponent, offset));
        i++;
    } while (i < 0);
}

#endif

void tk_run_scale(const tk_scale *layer, const int8_t *in, int8_t *out)
{
    const int32_t count = layer->rows * layer->channels;
    int32_t channel;
#if TK_KERNEL != TK_KERNEL_REF
    if (layer->rescale.fast != 0U) {
        quick_scale(layer, in, out);
        return;
    }
#endif
    for (channel = 0; channel < layer->channels; channel++) {
        const int32_t weight = layer->weight[channel];
        const int32_t bias = layer->bias[channel];
        int32_t i;
        for (i = channel; i < count; i += layer->channels) {
            out[i] = (int8_t)tk_rescaled((in[i] * weight) + bias, &layer->rescale, channel);
        }
    }
}

void tk_run_add(const tk_add *layer, const int8_t *first, const int8_t *second, int8_t *out)
{
    int32_t i;
#if TK_KERNEL != TK_KERNEL_REF
    if (layer->fast != 0U) {
        quick_add(layer, first, second, out);
        return;
    }
#endif
    for (i = 0; i < layer->count; i++) {
        const int32_t a = (first[i] - layer->zero_point[0]) * ((int32_t)1 << 20);
        const int32_t b = (second[i] - layer->zero_point[1]) * ((int32_t)1 << 20);
        const int32_t sum = tk_multiply(a, layer->multiplier[0], layer->shift[0]) +
                            tk_multiply(b, layer->multiplier[1], layer->shift[1]);
        const int32_t y = tk_multiply(sum, layer->out_multiplier, layer->out_shift);
        out[i] = (int8_t)tk_clamp(y + layer->out_zero_point, layer->low, layer->high);
    }
}

void tk_run_mean(const tk_mean *layer, const int8_t *in, int8_t *out)
{
    int32_t channel;
    for (channel = 0; channel < layer->channels; channel++) {
        int32_t sum = -layer->rows * layer->in_zero_point;
        int32_t row;
        for (row = 0; row < layer->rows; row++) {
            sum += in[(row * layer->channels) + channel];
        }
        sum = tk_multiply(sum, layer->multiplier, layer->shift) + layer->out_zero_point;
        out[channel] = (int8_t)tk_clamp(sum, -128, 127);
    }
}

uint32_t tk_checksum(const int8_t *bytes, int32_t count)
{
    uint32_t hash = 2166136261U;
    int32_t i;
    for (i = 0; i < count; i++) {
        hash = (hash ^ (uint32_t)(uint8_t)bytes[i]) * 16777619U;
    }
    return hash;
}
