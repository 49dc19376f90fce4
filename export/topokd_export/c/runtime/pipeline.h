/* A float pipeline made by topokd-edge: @LENGTH@ raw samples of @CHANNELS@ channels to @CLASSES@ logits.
 *
 * For benches, to compare an int8 student with. No heap, no stdio, no recursion, no mathematics library.
 *
 *     pipeline_begin(&pipeline);
 *     for every sample: pipeline_push(&pipeline, sample), which gives PIPELINE_WINDOW when the window is whole
 *     pipeline_run(&pipeline, logits);
 */
#ifndef PIPELINE_H
#define PIPELINE_H

#include <stdint.h>

#define PIPELINE_CHANNELS @CHANNELS@
#define PIPELINE_LENGTH @LENGTH@
#define PIPELINE_CLASSES @CLASSES@
#define PIPELINE_LAYERS @LAYERS@
#define PIPELINE_ARENA_BYTES @ARENA_BYTES@
#define PIPELINE_SCRATCH_VALUES @SCRATCH_VALUES@
#define PIPELINE_RAM_BYTES @RAM_BYTES@

typedef enum {
    PIPELINE_OK = 0,
    PIPELINE_WINDOW = 1,      /* the window is whole */
    PIPELINE_NOT_FINITE = -2, /* a value is NaN or infinite: nothing was taken */
    PIPELINE_NO_WINDOW = -4   /* the window is not whole, or was already */
} pipeline_status;

/* All memory of a pipeline. */
typedef struct {
    float arena[PIPELINE_ARENA_BYTES / 4];
    float scratch[PIPELINE_SCRATCH_VALUES];
    float window[PIPELINE_LENGTH * PIPELINE_CHANNELS];
    int32_t filled; /* samples of the window that are there */
} pipeline_t;

/* Empty the window. */
void pipeline_begin(pipeline_t *pipeline);

/* Take one sample, one value per channel, in the units of the recording. */
pipeline_status pipeline_push(pipeline_t *pipeline, const float sample[PIPELINE_CHANNELS]);

/* From the whole window to logits. Can be repeated. */
pipeline_status pipeline_run(pipeline_t *pipeline, float logits[PIPELINE_CLASSES]);

/* All of it: a raw window, [length][channels], to logits. */
pipeline_status pipeline_classify(pipeline_t *pipeline, const float *window, float logits[PIPELINE_CLASSES]);

#ifdef PIPELINE_WATCHED
/* Called after each layer, and before the first with -1. */
void pipeline_done(int32_t layer);
#define PIPELINE_DONE(layer) pipeline_done(layer)
#else
#define PIPELINE_DONE(layer) ((void)0)
#endif

#endif
