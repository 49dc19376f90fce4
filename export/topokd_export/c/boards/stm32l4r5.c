/* NUCLEO-L4R5ZI: the serial port of the ST-LINK (LPUART1, PG7 out, PG8 in), 120 MHz from the 16 MHz RC oscillator.
 *
 * Addresses and bits: RM0432 (STM32L4+ reference manual), chapters PWR, RCC, FLASH, GPIO, LPUART; the port's pins:
 * UM2179. The oscillator is right to one per cent.
 */
#include "board.h"

#define CLOCK_HZ 120000000U
#define HSI_HZ 16000000U
#define BAUD 115200U

#define RCC(offset) REGISTER(0x40021000U + (offset))
#define RCC_CR RCC(0x00U)
#define RCC_CFGR RCC(0x08U)
#define RCC_PLLCFGR RCC(0x0CU)
#define RCC_AHB2ENR RCC(0x4CU)
#define RCC_APB1ENR1 RCC(0x58U)
#define RCC_APB1ENR2 RCC(0x5CU)
#define RCC_CCIPR RCC(0x88U)
#define PWR_CR2 REGISTER(0x40007004U)
#define PWR_SR2 REGISTER(0x40007014U)
#define PWR_CR5 REGISTER(0x40007080U)
#define FLASH_ACR REGISTER(0x40022000U)
#define PORTG_MODE REGISTER(0x48001800U)
#define PORTG_ALTERNATE_LOW REGISTER(0x48001820U)
#define PORTG_ALTERNATE_HIGH REGISTER(0x48001824U)

#define LPUART(offset) REGISTER(0x40008000U + (offset))
#define CONTROL LPUART(0x00U)
#define DIVIDER LPUART(0x0CU)
#define STATUS LPUART(0x1CU)
#define CLEAR LPUART(0x20U)
#define RX_BYTE LPUART(0x24U)
#define TX_BYTE LPUART(0x28U)
#define RX_READY (1U << 5)
#define TX_READY (1U << 7)
#define ERRORS 0xFU /* parity, framing, noise, overrun */

/* 16 MHz / 4 * 60 / 2; above 80 MHz: boost range, 5 wait states, and for a microsecond half the speed. */
static void clock_120_mhz(void)
{
    volatile uint32_t wait;
    RCC_APB1ENR1 |= 1U << 28; /* PWR */
    RCC_CR |= 1U << 8;        /* HSI16 */
    while ((RCC_CR & (1U << 10)) == 0U) {
    }
    PWR_CR5 &= ~(1U << 8); /* range 1 boost */
    while ((PWR_SR2 & (1U << 10)) != 0U) {
    }
    FLASH_ACR = (FLASH_ACR & ~0xFU) | 5U | (1U << 8) | (1U << 9) | (1U << 10); /* prefetch, both caches */
    while ((FLASH_ACR & 0xFU) != 5U) {
    }
    RCC_PLLCFGR = 2U | (3U << 4) | (60U << 8) | (1U << 24); /* of HSI16, /4, x60, output R on, /2 */
    RCC_CR |= 1U << 24;
    while ((RCC_CR & (1U << 25)) == 0U) {
    }
    RCC_CFGR = (RCC_CFGR & ~0xF0U) | 0x80U; /* AHB by 2 */
    RCC_CFGR |= 3U;                         /* the PLL */
    while ((RCC_CFGR & 0xCU) != 0xCU) {
    }
    for (wait = 0U; wait < 100U; wait++) {
    }
    RCC_CFGR &= ~0xF0U;
}

void board_init(void)
{
    clock_120_mhz();
    PWR_CR2 |= 1U << 9; /* port G has its own supply */
    RCC_AHB2ENR |= 1U << 6;
    RCC_CCIPR = (RCC_CCIPR & ~(3U << 10)) | (2U << 10); /* LPUART1 by HSI16 */
    RCC_APB1ENR2 |= 1U;
    (void)RCC_APB1ENR2;
    PORTG_ALTERNATE_LOW = (PORTG_ALTERNATE_LOW & ~(0xFU << 28)) | (8U << 28);
    PORTG_ALTERNATE_HIGH = (PORTG_ALTERNATE_HIGH & ~0xFU) | 8U;
    PORTG_MODE = (PORTG_MODE & ~(0xFU << 14)) | (0xAU << 14);
    DIVIDER = (uint32_t)(((uint64_t)HSI_HZ * 256U) / BAUD);
    CONTROL = (1U << 29) | (1U << 3) | (1U << 2) | 1U; /* FIFO, out, in, on */
    COUNT_CYCLES();
}

int32_t board_read(void)
{
    const uint32_t status = STATUS;
    if ((status & ERRORS) != 0U) {
        CLEAR = status & ERRORS;
    }
    return ((status & RX_READY) != 0U) ? (int32_t)(RX_BYTE & 0xFFU) : -1;
}

void board_write(uint8_t byte)
{
    while ((STATUS & TX_READY) == 0U) {
    }
    TX_BYTE = byte;
}

uint32_t board_ticks(void)
{
    return DWT_CYCCNT;
}

uint32_t board_ticks_hz(void)
{
    return CLOCK_HZ;
}

uint32_t board_clock_hz(void)
{
    return CLOCK_HZ;
}
