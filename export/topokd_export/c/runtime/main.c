/* Example and self-test: streams made-up windows through the app's interface and compares the logits.
 *
 *     cc -std=c99 -O2 main.c student.c topokd_kernels.c -o selftest && ./selftest
 *
 * The exit status is 0 when every logit has the value that the export expects, 1 otherwise; 2: an error.
 * Where something else is `main` (Arduino, an operating system) it is `int student_self_test(void)`.
 */
#include "student.h"

#define WINDOWS @TEST_WINDOWS@

/* Samples in the app's own units. */
static const float samples[WINDOWS * STUDENT_LENGTH * STUDENT_CHANNELS] = {
    @TEST_SAMPLES@};

static const int8_t expected[WINDOWS * STUDENT_CLASSES] = {
@TEST_LOGITS@};

static student_t student;

#ifndef STUDENT_SELF_TEST
#ifdef ARDUINO
#define STUDENT_SELF_TEST student_self_test
#else
#define STUDENT_SELF_TEST main
#endif
#endif

int STUDENT_SELF_TEST(void);
int STUDENT_SELF_TEST(void)
{
    int32_t window;
    int wrong = 0;
    if (student_init(&student, STUDENT_LENGTH) != STUDENT_OK) {
        return 2;
    }
    for (window = 0; window < WINDOWS; window++) {
        int8_t logits[STUDENT_CLASSES];
        student_status status = STUDENT_OK;
        int32_t label;
        int32_t i;
        for (i = 0; i < STUDENT_LENGTH; i++) {
            status = student_push(&student, &samples[((window * STUDENT_LENGTH) + i) * STUDENT_CHANNELS]);
            if (status < STUDENT_OK) {
                return 2;
            }
        }
        if ((status != STUDENT_WINDOW) || (student_classify(&student, logits, &label) != STUDENT_OK)) {
            return 2;
        }
        for (i = 0; i < STUDENT_CLASSES; i++) {
            wrong |= (logits[i] != expected[(window * STUDENT_CLASSES) + i]) ? 1 : 0;
        }
    }
    return wrong;
}
