/* A student as a Linux program for benches; windows come on standard input, and a line answers each.
 *
 *     student levels                     int8 student: quantised windows, int8 -> quantised logits
 *     student logits                     float pipeline (BENCH_PIPELINE): raw windows, float32 -> logits
 *     student label                      raw windows, float32, sample by sample -> class
 *     student time WARMUP RUNS SECONDS   raw windows -> first peak memory in kB, then nanoseconds of each run
 */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef BENCH_PIPELINE
#include "pipeline.h"
#define VALUES (PIPELINE_LENGTH * PIPELINE_CHANNELS)
#define ANSWERS "logits"
static pipeline_t pipeline;
#else
#include "student.h"
#define VALUES (STUDENT_LENGTH * STUDENT_CHANNELS)
#define ANSWERS "levels"
static student_t student;
#endif

#define MOST_WINDOWS 64

static float windows[MOST_WINDOWS][VALUES];

static int64_t now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return ((int64_t)time.tv_sec * 1000000000) + (int64_t)time.tv_nsec;
}

#ifdef BENCH_PIPELINE

static int label_of(const float *window, int32_t *label)
{
    float out[PIPELINE_CLASSES];
    int32_t i;
    if (pipeline_classify(&pipeline, window, out) != PIPELINE_OK) {
        return 0;
    }
    *label = 0;
    for (i = 1; i < PIPELINE_CLASSES; i++) {
        *label = (out[i] > out[*label]) ? i : *label;
    }
    return 1;
}

static int answers(void)
{
    float out[PIPELINE_CLASSES];
    int32_t i;
    while (fread(windows[0], sizeof(float), VALUES, stdin) == VALUES) {
        if (pipeline_classify(&pipeline, windows[0], out) != PIPELINE_OK) {
            return 2;
        }
        for (i = 0; i < PIPELINE_CLASSES; i++) {
            (void)printf("%.9g ", (double)out[i]);
        }
        (void)printf("\n");
    }
    return 0;
}

#else

static int label_of(const float *window, int32_t *label)
{
    int32_t row;
    student_status status = student_init(&student, STUDENT_LENGTH);
    for (row = 0; (row < STUDENT_LENGTH) && (status == STUDENT_OK); row++) {
        status = student_push(&student, &window[row * STUDENT_CHANNELS]);
    }
    return (status == STUDENT_WINDOW) && (student_classify(&student, NULL, label) == STUDENT_OK);
}

static int answers(void)
{
    static int8_t in[VALUES];
    int8_t out[STUDENT_CLASSES];
    int32_t i;
    while (fread(in, 1, sizeof in, stdin) == sizeof in) {
        if (student_invoke(&student, in, out) != STUDENT_OK) {
            return 2;
        }
        for (i = 0; i < STUDENT_CLASSES; i++) {
            (void)printf("%d ", (int)out[i]);
        }
        (void)printf("\n");
    }
    return 0;
}

#endif

static int label(void)
{
    int32_t found = 0;
    while (fread(windows[0], sizeof(float), VALUES, stdin) == VALUES) {
        if (!label_of(windows[0], &found)) {
            return 2;
        }
        (void)printf("%d\n", (int)found);
    }
    return 0;
}

static long peak_kb(void)
{
    char line[256];
    long peak = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while ((file != NULL) && (fgets(line, (int)sizeof line, file) != NULL)) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            peak = strtol(&line[6], NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return peak;
}

static int timing(long warmup, long runs, double seconds)
{
    size_t have = fread(windows, sizeof windows[0], MOST_WINDOWS, stdin);
    size_t room = 4096, done = 0;
    int64_t *took = malloc(room * sizeof *took);
    int64_t end;
    int32_t found = 0;
    long i;
    if ((have == 0) || (took == NULL)) {
        return 2;
    }
    for (i = 0; i < warmup; i++) {
        (void)label_of(windows[(size_t)i % have], &found);
    }
    end = now() + (int64_t)(seconds * 1e9);
    while ((done < (size_t)runs) || (now() < end)) {
        int64_t begin;
        if (done == room) {
            int64_t *more = realloc(took, 2 * room * sizeof *took);
            if (more == NULL) {
                return 2;
            }
            took = more;
            room *= 2;
        }
        begin = now();
        if (!label_of(windows[done % have], &found)) {
            return 2;
        }
        took[done++] = now() - begin;
    }
    (void)printf("%ld\n", peak_kb());
    for (room = 0; room < done; room++) {
        (void)printf("%lld\n", (long long)took[room]);
    }
    free(took);
    return 0;
}

int main(int count, char **words)
{
    if ((count == 2) && (strcmp(words[1], ANSWERS) == 0)) {
        return answers();
    }
    if ((count == 2) && (strcmp(words[1], "label") == 0)) {
        return label();
    }
    if ((count == 5) && (strcmp(words[1], "time") == 0)) {
        return timing(strtol(words[2], NULL, 10), strtol(words[3], NULL, 10), strtod(words[4], NULL));
    }
    return 2;
}
