/* What differs between the kernels: how rows are widened and multiplied. */
#ifndef TOPOKD_DOT_H
#define TOPOKD_DOT_H

#include "topokd_arithmetic.h"

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

static inline void tk_conv_rows(const tk_conv *layer, const tk_value *in, int8_t *out, int32_t rows)
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

#endif
