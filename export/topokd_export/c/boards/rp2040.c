/* Raspberry Pi Pico: UART0 on GP0 (out) and GP1 (in), 125 MHz, one core, everything in RAM.
 *
 * Addresses and bits: RP2040 data sheet, chapters 2.14 (resets), 2.15 (clocks), 2.16 (XOSC), 2.18 (PLL), 2.19 (GPIO),
 * 4.2 (UART, Arm's PL011), 4.6 (timer), 4.7 (watchdog). The core has no cycle counter: time is in microseconds.
 */
#include "board.h"

#define CLOCK_HZ 125000000U
#define TICKS_HZ 1000000U
#define BAUD 115200U
#define DIVIDER_64 (((CLOCK_HZ * 4U) + (BAUD / 2U)) / BAUD) /* 64 * clock / (16 * baud) */

#define CLEARING 0x3000U /* beside a register: writing there clears bits */
#define RESET_BITS 0x4000C000U
#define RESET_DONE REGISTER(0x4000C008U)
#define CLK_REF_CTRL REGISTER(0x40008030U)
#define CLK_REF_SELECTED REGISTER(0x40008038U)
#define CLK_SYS_CTRL REGISTER(0x4000803CU)
#define CLK_SYS_SELECTED REGISTER(0x40008044U)
#define CLK_PERI_CTRL REGISTER(0x40008048U)
#define GPIO0_CTRL REGISTER(0x40014004U)
#define GPIO1_CTRL REGISTER(0x4001400CU)
#define XOSC_CTRL REGISTER(0x40024000U)
#define XOSC_STATUS REGISTER(0x40024004U)
#define XOSC_STARTUP REGISTER(0x4002400CU)
#define PLL_CS REGISTER(0x40028000U)
#define PLL_POWER 0x40028004U
#define PLL_FBDIV REGISTER(0x40028008U)
#define PLL_PRIM REGISTER(0x4002800CU)
#define TIMER_LOW REGISTER(0x40054028U)
#define WATCHDOG_TICK REGISTER(0x4005802CU)

#ifndef UART
#define UART 0x40034000U
#endif
#define UART_DATA REGISTER(UART + 0x00U)
#define UART_FLAGS REGISTER(UART + 0x18U)
#define UART_WHOLE REGISTER(UART + 0x24U)
#define UART_PARTS REGISTER(UART + 0x28U)
#define UART_LINE REGISTER(UART + 0x2CU)
#define UART_CONTROL REGISTER(UART + 0x30U)
#define RX_EMPTY (1U << 4)
#define TX_FULL (1U << 5)

enum { IO_BANK0 = 1 << 5, PADS_BANK0 = 1 << 8, PLL_SYS = 1 << 12, TIMER = 1 << 21, UART0 = 1 << 22 };

static void out_of_reset(uint32_t blocks)
{
    REGISTER(RESET_BITS + CLEARING) = blocks;
    while ((RESET_DONE & blocks) != blocks) {
    }
}

/* 12 MHz crystal * 125 / 6 / 2. */
static void clock_125_mhz(void)
{
    XOSC_CTRL = 0xAA0U; /* 1 to 15 MHz */
    XOSC_STARTUP = 47U; /* about a millisecond */
    XOSC_CTRL = (0xFABU << 12) | 0xAA0U;
    while ((XOSC_STATUS >> 31) == 0U) {
    }
    CLK_REF_CTRL = 2U; /* the crystal */
    while (CLK_REF_SELECTED != (1U << 2)) {
    }
    CLK_SYS_CTRL = 0U; /* as the reference, while the PLL is set */
    while (CLK_SYS_SELECTED != 1U) {
    }
    REGISTER(RESET_BITS) |= (uint32_t)PLL_SYS;
    out_of_reset((uint32_t)PLL_SYS);
    PLL_CS = 1U;
    PLL_FBDIV = 125U;
    REGISTER(PLL_POWER + CLEARING) = (1U << 0) | (1U << 5); /* PLL and its oscillator on */
    while ((PLL_CS >> 31) == 0U) {
    }
    PLL_PRIM = (6U << 16) | (2U << 12);
    REGISTER(PLL_POWER + CLEARING) = 1U << 3; /* the dividers behind it */
    CLK_SYS_CTRL = 1U;
    while (CLK_SYS_SELECTED != (1U << 1)) {
    }
    CLK_PERI_CTRL = 1U << 11; /* on, as the system */
}

void board_init(void)
{
    clock_125_mhz();
    out_of_reset((uint32_t)(IO_BANK0 | PADS_BANK0 | TIMER | UART0));
    WATCHDOG_TICK = (1U << 9) | 12U; /* a microsecond, for the timer */
    UART_WHOLE = DIVIDER_64 / 64U;
    UART_PARTS = DIVIDER_64 % 64U;
    UART_LINE = (3U << 5) | (1U << 4); /* 8 bits, FIFO */
    UART_CONTROL = (1U << 9) | (1U << 8) | 1U;
    GPIO0_CTRL = 2U;
    GPIO1_CTRL = 2U;
}

int32_t board_read(void)
{
    return ((UART_FLAGS & RX_EMPTY) != 0U) ? -1 : (int32_t)(UART_DATA & 0xFFU);
}

void board_write(uint8_t byte)
{
    while ((UART_FLAGS & TX_FULL) != 0U) {
    }
    UART_DATA = byte;
}

uint32_t board_ticks(void)
{
    return TIMER_LOW;
}

uint32_t board_ticks_hz(void)
{
    return TICKS_HZ;
}

uint32_t board_clock_hz(void)
{
    return CLOCK_HZ;
}
