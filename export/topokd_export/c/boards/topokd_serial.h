/* Frames on a serial wire: packed, unpacked and checked, byte by byte. No heap, no stdio.
 *
 *     wire   = { 0x00 | stuffed 0x00 }          zeros between frames are nothing
 *     stuffed = COBS(body)                      no zero inside: the next zero is where a reader begins anew
 *     body   = version kind sequence payload crc
 *     version, kind, sequence = one byte each
 *     payload = 0..TS_PAYLOAD bytes; numbers are little-endian
 *     crc    = CRC-32 of all before it, 4 bytes, as in Ethernet and zlib (reflected 0xEDB88320)
 *
 * COBS: Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999.
 */
#ifndef TOPOKD_SERIAL_H
#define TOPOKD_SERIAL_H

#include <stdint.h>

#define TS_VERSION 2U
#define TS_PAYLOAD 1024U
#define TS_HEAD 3U
#define TS_CRC 4U
#define TS_BODY (TS_HEAD + TS_PAYLOAD + TS_CRC)

typedef enum {
    TS_MORE = 0,    /* nothing yet */
    TS_FRAME = 1,   /* a whole frame lies in the receiver until the next byte is fed */
    TS_DAMAGED = 2  /* bytes that are no frame came to an end */
} ts_event;

/* A body without its crc. */
typedef struct {
    uint8_t body[TS_BODY];
    uint32_t length;
} ts_frame;

typedef struct {
    ts_frame frame;
    uint32_t left; /* bytes until the next length byte of COBS */
    uint8_t begun;
    uint8_t zero_due;
    uint8_t too_long;
} ts_receiver;

uint32_t ts_crc32(const uint8_t *bytes, uint32_t count);

/* Take one byte. The receiver begins as all zeros. */
ts_event ts_feed(ts_receiver *receiver, uint8_t byte);

void ts_begin(ts_frame *frame, uint8_t kind, uint8_t sequence);

/* Add to the payload; what does not fit is left out, and 0 returned. */
int32_t ts_add(ts_frame *frame, const uint8_t *bytes, uint32_t count);
int32_t ts_add_u32(ts_frame *frame, uint32_t value);

/* Write a frame, a zero before and after it. The frame stays as it is and can be sent again. */
void ts_send(ts_frame *frame, void (*write)(uint8_t byte));

/* Four bytes, little-endian. */
uint32_t ts_u32(const uint8_t *bytes);

#endif
