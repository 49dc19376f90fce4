/* What the bench firmware needs of a board. A new board is one C file with these, and an entry in boards.py. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Clocks, pins, serial port, counter. */
void board_init(void);

/* A byte that came, or -1. */
int32_t board_read(void);

/* Send a byte; waits until it is gone. */
void board_write(uint8_t byte);

/* A counter of 32 bits that runs on, and its rate. */
uint32_t board_ticks(void);
uint32_t board_ticks_hz(void);

/* Clock of the core. */
uint32_t board_clock_hz(void);

/* Arm's cycle counter (ARMv7-M Architecture Reference Manual, C1.8): DEMCR, DWT_CTRL and DWT_CYCCNT. */
#define DEMCR REGISTER(0xE000EDFCU)
#define DWT_CTRL REGISTER(0xE0001000U)
#define DWT_CYCCNT REGISTER(0xE0001004U)
#define COUNT_CYCLES()              \
    do {                            \
        DEMCR |= 1U << 24;          \
        DWT_CYCCNT = 0U;            \
        DWT_CTRL |= 1U;             \
    } while (0)

#endif
