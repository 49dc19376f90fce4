/* See topokd_topology.h. */
#include "topokd_topology.h"

#include <float.h>

#define TK_NO_DEATH FLT_MAX

/* Write the finite pairs of one channel from the end of `pairs` on; return how many.
 *
 * Basins lie on a stack at the front, from left to right. Their walls fall strictly from left to right, so the
 * last one is always the next to be flooded: each sample is pushed and popped once. Stack and pairs together
 * never hold more than all samples.
 */
static int32_t flood(const tk_persistence *layer, const float *signal, tk_pair *pairs)
{
    int32_t found = 0;
    int32_t top = 0;
    int32_t t;
    float before = layer->sign * signal[0];
    pairs[0].birth = before;
    for (t = 1; t <= layer->length; t++) {
        const float now = (t < layer->length) ? (layer->sign * signal[t * layer->channels]) : 0.0f;
        const float edge = (t == layer->length) ? TK_NO_DEATH : ((before > now) ? before : now);
        while ((top > 0) && (pairs[top].death <= edge)) {
            const float left = pairs[top - 1].birth;
            const float right = pairs[top].birth;
            const float wall = pairs[top].death;
            const float younger = (left > right) ? left : right;
            top--;
            pairs[top].birth = (left > right) ? right : left;
            if (younger < wall) {
                tk_pair *const pair = &pairs[layer->length - found];
                pair->birth = younger;
                pair->death = wall;
                found++;
            }
        }
        if (t < layer->length) {
            top++;
            pairs[top].birth = now;
            pairs[top].death = edge;
            before = now;
        }
    }
    return found;
}

static float highest(const tk_persistence *layer, const float *signal)
{
    float most = layer->sign * signal[0];
    int32_t t;
    for (t = 1; t < layer->length; t++) {
        const float value = layer->sign * signal[t * layer->channels];
        most = (value > most) ? value : most;
    }
    return most;
}

void tk_run_persistence(const tk_persistence *layer, const float *window, tk_pair *diagrams)
{
    int32_t channel;
    for (channel = 0; channel < layer->channels; channel++) {
        const float *const signal = &window[channel];
        tk_pair *const pairs = &diagrams[channel * (layer->length + 1)];
        int32_t found = flood(layer, signal, pairs);
        const float low = pairs[0].birth; /* the last basin of all */
        if (layer->essential != TK_DROP) {
            const float death = (layer->essential == TK_CAP)      ? highest(layer, signal)
                                : (layer->essential == TK_CAP_AT) ? layer->cap
                                                                  : TK_NO_DEATH;
            if (death > low) {
                pairs[layer->length - found].birth = low;
                pairs[layer->length - found].death = death;
                found++;
            }
        }
        pairs[layer->length - found].birth = 0.0f;
        pairs[layer->length - found].death = -1.0f;
    }
}

/* A range of pixels and the masses in them. */
typedef struct {
    float *values;
    int32_t first;
    int32_t count;
} tk_smear;

/* Interpolate what a Gaussian at a place leaves in pixels, by cubic polynomials through four rows of the table. */
static void smear(const tk_masses *table, double place, tk_smear *to)
{
    const int32_t width = (2 * table->reach) + 1;
    int32_t cell;
    int32_t end;
    int32_t row;
    int32_t i;
    double row_place;
    float t;
    const float *masses;
    to->first = 0;
    to->count = 0;
    if ((place < -(double)(table->reach + 1)) || (place > (double)(table->pixels + table->reach + 1))) {
        return;
    }
    cell = (int32_t)(place + (double)(table->reach + 1)) - (table->reach + 1);
    cell = ((place == (double)table->pixels) && (cell == table->pixels)) ? (cell - 1) : cell;
    row_place = (place - (double)cell) * (double)table->steps;
    row = (int32_t)row_place;
    row = (row < table->steps) ? row : (table->steps - 1);
    t = (float)(row_place - (double)row);
    to->first = ((cell - table->reach) > 0) ? (cell - table->reach) : 0;
    end = cell + table->reach + 1;
    end = (end < table->pixels) ? end : table->pixels;
    to->count = (end > to->first) ? (end - to->first) : 0;
    masses = &table->masses[(row * width) + (to->first + table->reach - cell)];
    {
        const float c0 = -t * (t - 1.0f) * (t - 2.0f) / 6.0f;
        const float c1 = (t + 1.0f) * (t - 1.0f) * (t - 2.0f) / 2.0f;
        const float c2 = -(t + 1.0f) * t * (t - 2.0f) / 2.0f;
        const float c3 = (t + 1.0f) * t * (t - 1.0f) / 6.0f;
        for (i = 0; i < to->count; i++) {
            const float mass = (c0 * masses[i]) + (c1 * masses[i + width]) + (c2 * masses[i + (2 * width)]) +
                               (c3 * masses[i + (3 * width)]);
            to->values[i] = (mass > 0.0f) ? mass : 0.0f; /* interpolation overshoots in the tails */
        }
    }
}

/* x to the power y for x in 0..1 and y > 0: to 1e-10, by series of the logarithm and the exponential. */
static double power(double x, double y)
{
    const double half_root = 0.70710678118654752440;
    const double ln2 = 0.69314718055994530942;
    double exponent = 0.0;
    double s;
    double square;
    double rest;
    double term = 1.0;
    double sum = 1.0;
    int32_t i;
    if (x <= 0.0) {
        return 0.0;
    }
    while (x < half_root) {
        x *= 2.0;
        exponent -= 1.0;
    }
    s = (x - 1.0) / (x + 1.0);
    square = s * s;
    rest = 1.0 / 13.0;
    for (i = 11; i >= 1; i -= 2) {
        rest = (rest * square) + (1.0 / (double)i);
    }
    rest = y * ((2.0 * s * rest) + (exponent * ln2)); /* the logarithm of the result, 0 or below */
    exponent = 1.0;
    while (rest < -ln2) {
        rest += ln2;
        exponent *= 0.5;
        if (exponent < 1e-300) {
            return 0.0;
        }
    }
    for (i = 1; i <= 14; i++) {
        term *= rest / (double)i;
        sum += term;
    }
    return exponent * sum;
}

/* What a pair of a life at a place weighs, before it is compared with the heaviest of its diagram. */
static double weight_of(const tk_image *layer, double life, double place)
{
    if (layer->weight == TK_LONGEST) {
        return life;
    }
    if (layer->weight == TK_POWER) {
        return (layer->start == 1.0) ? place : power(place, layer->start);
    }
    if (layer->weight == TK_RAMP) {
        const double risen = (place - layer->start) / (layer->end - layer->start);
        return (risen < 0.0) ? 0.0 : ((risen > 1.0) ? 1.0 : risen);
    }
    return 1.0;
}

/* Where a value lies on an axis, 0..1 within its range. */
static double unit_of(const tk_image *layer, const tk_axis *axis, double value)
{
    const double unit = (value - axis->low) / axis->range;
    if (layer->clamped == 0) {
        return unit;
    }
    return (unit < 0.0) ? 0.0 : ((unit > 1.0) ? 1.0 : unit);
}

/* The life of a pair; 0 when it is too short to count. */
static double life_of(const tk_image *layer, int32_t channel, const tk_pair *pair)
{
    const double life = (double)pair->death - (double)pair->birth;
    if (pair->death == TK_NO_DEATH) {
        return layer->unending[channel];
    }
    return (life > layer->shortest[channel]) ? life : 0.0;
}

/* The greatest weight of a diagram; 0 when there is nothing to draw. */
static double heaviest_of(const tk_image *layer, int32_t channel, const tk_pair *last)
{
    double heaviest = 0.0;
    const tk_pair *pair;
    for (pair = last; pair->death >= pair->birth; pair--) {
        const double life = life_of(layer, channel, pair);
        if (life > 0.0) {
            const double weight = weight_of(layer, life, unit_of(layer, &layer->lives[channel], life));
            heaviest = (weight > heaviest) ? weight : heaviest;
        }
    }
    return heaviest;
}

/* Weights are divided by `unit`. */
static void draw(const tk_image *layer, int32_t channel, const tk_pair *pair, double unit, float *image,
                 float *scratch)
{
    const tk_axis *const births = &layer->births[channel];
    const tk_axis *const lives = &layer->lives[channel];
    const double life = life_of(layer, channel, pair);
    const double life_unit = unit_of(layer, lives, life);
    const float weight = (float)(weight_of(layer, life, life_unit) / unit);
    tk_smear across = {scratch, 0, 0};
    tk_smear up = {&scratch[layer->columns], 0, 0};
    int32_t j;
    smear(births->table, unit_of(layer, births, (double)pair->birth) * births->scale, &across);
    smear(lives->table, life_unit * lives->scale, &up);
    for (j = 0; j < up.count; j++) {
        const int32_t row = layer->rows - 1 - (up.first + j);
        float *const line = &image[(((row * layer->columns) + across.first) * layer->channels) + channel];
        const float scale = weight * up.values[j];
        int32_t i;
        for (i = 0; i < across.count; i++) {
            line[i * layer->channels] += scale * across.values[i];
        }
    }
}

/* Divide by the maximum, where that is wished, and standardise. */
static void finish(const tk_image *layer, int32_t channel, float *image)
{
    const int32_t count = layer->rows * layer->columns * layer->channels;
    float largest = 0.0f;
    float scale;
    int32_t i;
    for (i = channel; i < count; i += layer->channels) {
        largest = (image[i] > largest) ? image[i] : largest;
    }
    scale = ((layer->normalise != 0) && (largest >= FLT_MIN)) ? (1.0f / largest) : 1.0f;
    for (i = channel; i < count; i += layer->channels) {
        image[i] = ((image[i] * scale) - layer->mean[channel]) / layer->std[channel];
    }
}

void tk_run_image(const tk_image *layer, const tk_pair *diagrams, float *image, float *scratch)
{
    const int32_t count = layer->rows * layer->columns * layer->channels;
    int32_t channel;
    int32_t i;
    for (i = 0; i < count; i++) {
        image[i] = 0.0f;
    }
    for (channel = 0; channel < layer->channels; channel++) {
        const tk_pair *const last = &diagrams[(channel * (layer->length + 1)) + layer->length];
        const double heaviest = heaviest_of(layer, channel, last);
        /* Where only proportions count, weights up to 1 keep floats from running out of exponents. */
        const double unit = ((layer->normalise != 0) || (layer->weight == TK_LONGEST)) ? heaviest : 1.0;
        const tk_pair *pair;
        for (pair = last; (heaviest > 0.0) && (pair->death >= pair->birth); pair--) {
            if (life_of(layer, channel, pair) > 0.0) {
                draw(layer, channel, pair, unit, image, scratch);
            }
        }
        finish(layer, channel, image);
    }
}
