/* Wraps the kernels, so that every layer of a student is seen without a student built for it; and runs it.
 *
 * Included once, by a program that is linked with -Wl,--wrap=tk_run_conv and so on, that has `student`, `samples`
 * and `layer` (the number of the one that runs), and that says what is done before and after a layer:
 *     static uint32_t layer_begins(void);
 *     static void layer_ended(uint32_t begun, const int8_t *out, int32_t count);
 */
#include "topokd_kernels.h"

void __real_tk_run_conv(const tk_conv *one, const int8_t *in, int8_t *out, tk_value *scratch);
void __wrap_tk_run_conv(const tk_conv *one, const int8_t *in, int8_t *out, tk_value *scratch);
void __wrap_tk_run_conv(const tk_conv *one, const int8_t *in, int8_t *out, tk_value *scratch)
{
    const uint32_t begun = layer_begins();
    __real_tk_run_conv(one, in, out, scratch);
    layer_ended(begun, out, one->out_rows * one->out_channels);
}

void __real_tk_run_scale(const tk_scale *one, const int8_t *in, int8_t *out);
void __wrap_tk_run_scale(const tk_scale *one, const int8_t *in, int8_t *out);
void __wrap_tk_run_scale(const tk_scale *one, const int8_t *in, int8_t *out)
{
    const uint32_t begun = layer_begins();
    __real_tk_run_scale(one, in, out);
    layer_ended(begun, out, one->rows * one->channels);
}

void __real_tk_run_add(const tk_add *one, const int8_t *first, const int8_t *second, int8_t *out);
void __wrap_tk_run_add(const tk_add *one, const int8_t *first, const int8_t *second, int8_t *out);
void __wrap_tk_run_add(const tk_add *one, const int8_t *first, const int8_t *second, int8_t *out)
{
    const uint32_t begun = layer_begins();
    __real_tk_run_add(one, first, second, out);
    layer_ended(begun, out, one->count);
}

void __real_tk_run_mean(const tk_mean *one, const int8_t *in, int8_t *out);
void __wrap_tk_run_mean(const tk_mean *one, const int8_t *in, int8_t *out);
void __wrap_tk_run_mean(const tk_mean *one, const int8_t *in, int8_t *out)
{
    const uint32_t begun = layer_begins();
    __real_tk_run_mean(one, in, out);
    layer_ended(begun, out, one->channels);
}

/* From raw samples to logits, as an app does it. */
static int32_t classify_samples(int8_t *logits)
{
    int32_t row;
    int32_t label;
    student_status status = student_init(&student, STUDENT_DEFAULT_STEP);
    layer = 0;
    for (row = 0; (row < STUDENT_LENGTH) && (status == STUDENT_OK); row++) {
        status = student_push(&student, &samples[row * STUDENT_CHANNELS]);
    }
    return (status == STUDENT_WINDOW) ? (int32_t)student_classify(&student, logits, &label) : -100;
}
