/* Made by topokd-edge; see pipeline.h. */
#include "pipeline.h"

#include <float.h>

#include "topokd_float.h"
@INCLUDES@
typedef char pipeline_memory_is_as_planned[(sizeof(pipeline_t) <= PIPELINE_RAM_BYTES) ? 1 : -1];
typedef char pipeline_floats_are_ieee[((sizeof(float) == 4U) && (FLT_MANT_DIG == 24)) ? 1 : -1];

@SCALE@
@CONSTANTS@

void pipeline_begin(pipeline_t *pipeline)
{
    pipeline->filled = 0;
}

pipeline_status pipeline_push(pipeline_t *pipeline, const float sample[PIPELINE_CHANNELS])
{
    float *const row = &pipeline->window[pipeline->filled * PIPELINE_CHANNELS];
    int32_t channel;
    if (pipeline->filled == PIPELINE_LENGTH) {
        return PIPELINE_NO_WINDOW;
    }
    for (channel = 0; channel < PIPELINE_CHANNELS; channel++) {
        if (!((sample[channel] >= -FLT_MAX) && (sample[channel] <= FLT_MAX))) {
            return PIPELINE_NOT_FINITE;
        }
    }
    for (channel = 0; channel < PIPELINE_CHANNELS; channel++) {
        row[channel] = @TAKEN@;
    }
    pipeline->filled++;
    return (pipeline->filled == PIPELINE_LENGTH) ? PIPELINE_WINDOW : PIPELINE_OK;
}

pipeline_status pipeline_run(pipeline_t *pipeline, float logits[PIPELINE_CLASSES])
{
    if (pipeline->filled != PIPELINE_LENGTH) {
        return PIPELINE_NO_WINDOW;
    }
    PIPELINE_DONE(-1);
@CALLS@
    return PIPELINE_OK;
}

pipeline_status pipeline_classify(pipeline_t *pipeline, const float *window, float logits[PIPELINE_CLASSES])
{
    pipeline_status status = PIPELINE_OK;
    int32_t row;
    pipeline_begin(pipeline);
    for (row = 0; (row < PIPELINE_LENGTH) && (status == PIPELINE_OK); row++) {
        status = pipeline_push(pipeline, &window[row * PIPELINE_CHANNELS]);
    }
    return (status == PIPELINE_WINDOW) ? pipeline_run(pipeline, logits) : status;
}
