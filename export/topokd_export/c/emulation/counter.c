/* Counts how often an emulated core runs each straight piece of code, layer by layer: a block hook of Unicorn. */
#include <stdint.h>

#define ROOM 0x10000U /* a power of two: pieces of code times layers */
#define MOST_KERNELS 16U

typedef struct {
    uint64_t times; /* 0: the place is free */
    uint32_t address;
    uint32_t size;
    uint32_t layer;
    uint32_t jumped; /* 1: reached by a jump and not from above */
} piece;

typedef struct {
    uint32_t kernels[MOST_KERNELS]; /* where the function of a layer begins; 0: none */
    uint32_t layer;
    uint32_t end;
    uint32_t used;
    uint32_t full;
    piece pieces[ROOM];
} counter;

uint32_t counter_size(void);
void counter_seen(void *core, uint64_t at, uint32_t size, void *data);

uint32_t counter_size(void)
{
    return (uint32_t)sizeof(counter);
}

void counter_seen(void *core, uint64_t at, uint32_t size, void *data)
{
    counter *const found = data;
    const uint32_t address = (uint32_t)at;
    const uint32_t jumped = (address != found->end) ? 1U : 0U;
    uint32_t place;
    uint32_t i;
    (void)core;
    for (i = 0U; (i < MOST_KERNELS) && (found->kernels[i] != 0U); i++) {
        found->layer += (found->kernels[i] == address) ? 1U : 0U;
    }
    found->end = address + size;
    place = (((address >> 1U) + (found->layer * 40503U) + jumped) * 2654435761U) >> 16U;
    for (;;) {
        piece *const one = &found->pieces[place];
        if (one->times == 0U) {
            found->used += 1U;
            if (found->used >= (ROOM - 1U)) {
                found->full = 1U; /* one place stays free, so that the search ends */
                return;
            }
            one->address = address;
            one->size = size;
            one->layer = found->layer;
            one->jumped = jumped;
        }
        if ((one->address == address) && (one->layer == found->layer) && (one->jumped == jumped) &&
            (one->size == size)) {
            one->times += 1U;
            return;
        }
        place = (place + 1U) & (ROOM - 1U);
    }
}
