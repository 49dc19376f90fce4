/* nRF52840-DK: the serial port of the debugger on board (P0.06 out, P0.08 in), 64 MHz.
 *
 * Addresses and bits: nRF52840 Product Specification v1.8, chapters UART, CLOCK, NVMC, GPIO. The older UART is
 * used, which moves single bytes without DMA.
 */
#include "board.h"

#define CLOCK_HZ 64000000U
#define TX_PIN 6U
#define RX_PIN 8U

#define HFCLK_START REGISTER(0x40000000U)
#define HFCLK_STARTED REGISTER(0x40000100U)
#define INSTRUCTION_CACHE REGISTER(0x4001E540U)
#define PORT0_SET REGISTER(0x50000508U)
#define PORT0_OUTPUTS REGISTER(0x50000518U)
#define PORT0_PIN(n) REGISTER(0x50000700U + (4U * (n)))

#define START_RX REGISTER(0x40002000U)
#define START_TX REGISTER(0x40002008U)
#define RX_READY REGISTER(0x40002108U)
#define TX_READY REGISTER(0x4000211CU)
#define ENABLE REGISTER(0x40002500U)
#define TX_SELECT REGISTER(0x4000250CU)
#define RX_SELECT REGISTER(0x40002514U)
#define RX_BYTE REGISTER(0x40002518U)
#define TX_BYTE REGISTER(0x4000251CU)
#define BAUD_RATE REGISTER(0x40002524U)
#define BAUD_115200 0x01D7E000U

void board_init(void)
{
    HFCLK_STARTED = 0U;
    HFCLK_START = 1U; /* the crystal: the oscillator on the chip is off by a per cent and more */
    while (HFCLK_STARTED == 0U) {
    }
    INSTRUCTION_CACHE = 1U;
    PORT0_SET = 1U << TX_PIN;
    PORT0_OUTPUTS = 1U << TX_PIN;
    PORT0_PIN(RX_PIN) = 3U << 2; /* input, pulled up */
    TX_SELECT = TX_PIN;
    RX_SELECT = RX_PIN;
    BAUD_RATE = BAUD_115200;
    ENABLE = 4U;
    START_RX = 1U;
    START_TX = 1U;
    COUNT_CYCLES();
}

int32_t board_read(void)
{
    if (RX_READY == 0U) {
        return -1;
    }
    RX_READY = 0U; /* before the byte is read: the next one sets it again */
    return (int32_t)(RX_BYTE & 0xFFU);
}

void board_write(uint8_t byte)
{
    TX_READY = 0U;
    TX_BYTE = byte;
    while (TX_READY == 0U) {
    }
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
