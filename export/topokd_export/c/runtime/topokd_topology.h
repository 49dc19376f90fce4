/* Persistence of the components of a signal's sublevel sets, and persistence images, as topokd-edge's fast backend.
 *
 * No heap, no stdio, no recursion, no mathematics library. What is done once a pair is done in doubles, so that
 * a pair lies where the backend puts it; what is done once a pixel is done in floats.
 */
#ifndef TOPOKD_TOPOLOGY_H
#define TOPOKD_TOPOLOGY_H

#include <stdint.h>

/* A pair; on the way there, a basin with its minimum and the wall on its left. */
typedef struct {
    float birth;
    float death;
} tk_pair;

#define TK_DROP 0   /* the class that never dies is left out, */
#define TK_CAP 1    /* dies at the maximum of the signal, */
#define TK_CAP_AT 2 /* dies at `cap`, */
#define TK_KEEP 3   /* or has no death */

/* Diagrams of all channels: length + 1 pairs a channel, the last one first; a death below its birth ends them. */
typedef struct {
    int32_t length;
    int32_t channels;
    int32_t essential;
    float cap;
    float sign; /* -1: the sets above a level, as those below of the negated signal */
} tk_persistence;

/* Masses that a Gaussian leaves in the pixels of an axis, by its place between two of their edges. */
typedef struct {
    const float *masses; /* [steps + 3][2 * reach + 1]; the rows beyond both ends serve interpolation */
    int32_t steps;
    int32_t reach;
    int32_t pixels;
} tk_masses;

/* A value lies at (value - low) / range * scale pixels. */
typedef struct {
    double low;
    double range;
    double scale;
    const tk_masses *table;
} tk_axis;

#define TK_POWER 0    /* a pair weighs its place on the axis of lives to the power `start`, */
#define TK_RAMP 1     /* rises from 0 at `start` to 1 at `end`, */
#define TK_CONSTANT 2 /* weighs 1, */
#define TK_LONGEST 3  /* or its life over the longest of the diagram */

typedef struct {
    const tk_axis *births; /* [channels] */
    const tk_axis *lives;
    const double *shortest; /* a pair must live longer */
    const double *unending; /* life of a pair that has no death */
    const float *mean;      /* [channels], of standardising */
    const float *std;
    double start;
    double end;
    int32_t weight;
    int32_t clamped;   /* 1: beyond a range is on its border; 0: is lost */
    int32_t normalise; /* 1: divide by the maximum */
    int32_t length;
    int32_t channels;
    int32_t rows;
    int32_t columns;
} tk_image;

/* `window` is [length][channels]. */
void tk_run_persistence(const tk_persistence *layer, const float *window, tk_pair *diagrams);

/* `image` is [rows][columns][channels], the longest lives in row 0; `scratch` holds rows + columns values. */
void tk_run_image(const tk_image *layer, const tk_pair *diagrams, float *image, float *scratch);

#endif
