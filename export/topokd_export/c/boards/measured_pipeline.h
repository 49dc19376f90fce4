/* What the bench runs: a float pipeline, which says itself when a layer is done (PIPELINE_WATCHED). */
#include "pipeline.h"

#define MEASURED_CHANNELS PIPELINE_CHANNELS
#define MEASURED_LENGTH PIPELINE_LENGTH
#define MEASURED_CLASSES PIPELINE_CLASSES
#define MEASURED_LAYERS PIPELINE_LAYERS
#define MEASURED_BYTES sizeof(pipeline_t)

static pipeline_t pipeline;
static float samples[PIPELINE_LENGTH * PIPELINE_CHANNELS];
static float logits[PIPELINE_CLASSES];
static uint32_t checksums[PIPELINE_LAYERS];

/* Where in the arena each layer but the last, which gives the logits, leaves its output. */
static const struct {
    uint32_t value;
    uint32_t bytes;
} outputs[PIPELINE_LAYERS] = {BENCH_OUTPUTS};

void pipeline_done(int32_t layer)
{
    const float *out = logits;
    uint32_t bytes = (uint32_t)sizeof(logits);
    if ((watching == 0) || (layer < 0)) {
        return;
    }
    if (layer < (PIPELINE_LAYERS - 1)) {
        out = &pipeline.arena[outputs[layer].value];
        bytes = outputs[layer].bytes;
    }
    checksums[layer] = ts_crc32((const uint8_t *)out, bytes);
}

/* From raw samples to logits. Diagrams do not fill their place: what is left of it is zero where it is looked at. */
static int32_t classify(void)
{
    uint32_t i;
    for (i = 0U; (watching != 0) && (i < (PIPELINE_ARENA_BYTES / 4U)); i++) {
        pipeline.arena[i] = 0.0f;
    }
    return (int32_t)pipeline_classify(&pipeline, samples, logits);
}
