/* What JavaScript calls. Samples and logits pass through two arrays in the module's memory. */
#include "student.h"

#define EXPORT(name) __attribute__((__export_name__(name)))

static student_t stream;
static student_t single;
static float samples[STUDENT_LENGTH * STUDENT_CHANNELS];
static int8_t logits[STUDENT_CLASSES];

EXPORT("samples") float *glue_samples(void);
EXPORT("logits") int8_t *glue_logits(void);
EXPORT("reset") int32_t glue_reset(uint32_t step);
EXPORT("gap") int32_t glue_gap(void);
EXPORT("push") int32_t glue_push(void);
EXPORT("classify") int32_t glue_classify(void);

float *glue_samples(void) { return samples; }

int8_t *glue_logits(void) { return logits; }

int32_t glue_reset(uint32_t step) { return (int32_t)student_init(&stream, step); }

int32_t glue_gap(void) { return (int32_t)student_gap(&stream); }

/* Push one sample of a student and, where it completes a window, classify that. */
static int32_t pushed(student_t *student, const float *sample)
{
    int32_t label;
    student_status status = student_push(student, sample);
    if (status == STUDENT_WINDOW) {
        status = student_classify(student, logits, &label);
        return (status == STUDENT_OK) ? (int32_t)STUDENT_WINDOW : (int32_t)status;
    }
    return (int32_t)status;
}

int32_t glue_push(void) { return pushed(&stream, samples); }

/* Classify the whole array as one window, beside the stream. */
int32_t glue_classify(void)
{
    int32_t row;
    int32_t status = (int32_t)student_init(&single, STUDENT_LENGTH);
    for (row = 0; (row < STUDENT_LENGTH) && (status == (int32_t)STUDENT_OK); row++) {
        status = pushed(&single, &samples[row * STUDENT_CHANNELS]);
    }
    return status;
}
