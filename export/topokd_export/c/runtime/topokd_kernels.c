/* See topokd_kernels.h. */
#include "topokd_kernels.h"

#include "topokd_arithmetic.h"
#include "topokd_dot.h"

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

void tk_run_conv(const tk_conv *layer, const int8_t *in, int8_t *out, tk_value *scratch)
{
    int32_t kept = 0;
    int32_t row;
    for (row = 0; row < layer->out_rows; row += layer->block_rows) {
        const int32_t left = layer->out_rows - row;
        const int32_t rows = (left < layer->block_rows) ? left : layer->block_rows;
        const int32_t needed = ((rows - 1) * layer->stride) + layer->taps;
        fill(layer, in, scratch, (row * layer->stride) - layer->padding, kept, needed);
        tk_conv_rows(layer, scratch, &out[row * layer->out_channels], rows);
        if (left > rows) {
            kept = keep(layer, scratch, rows);
        }
    }
}

void tk_run_scale(const tk_scale *layer, const int8_t *in, int8_t *out)
{
    const int32_t count = layer->rows * layer->channels;
    int32_t channel;
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
