/* What JavaScript calls of a float pipeline: a raw window in, logits out, through two arrays. */
#include "pipeline.h"

#define EXPORT(name) __attribute__((__export_name__(name)))

static pipeline_t pipeline;
static float window[PIPELINE_LENGTH * PIPELINE_CHANNELS];
static float logits[PIPELINE_CLASSES];

EXPORT("window") float *glue_window(void);
EXPORT("logits") float *glue_logits(void);
EXPORT("classify") int32_t glue_classify(void);

float *glue_window(void) { return window; }

float *glue_logits(void) { return logits; }

int32_t glue_classify(void) { return (int32_t)pipeline_classify(&pipeline, window, logits); }
