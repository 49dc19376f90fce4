/* See topokd_serial.h. */
#include "topokd_serial.h"

#define LONGEST_RUN 254U

uint32_t ts_crc32(const uint8_t *bytes, uint32_t count)
{
    uint32_t crc = 0xFFFFFFFFU;
    uint32_t i;
    uint32_t bit;
    for (i = 0U; i < count; i++) {
        crc ^= bytes[i];
        for (bit = 0U; bit < 8U; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320U & (0U - (crc & 1U)));
        }
    }
    return ~crc;
}

uint32_t ts_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) |
           ((uint32_t)bytes[3] << 24);
}

static void keep(ts_receiver *receiver, uint8_t byte)
{
    if (receiver->frame.length < TS_BODY) {
        receiver->frame.body[receiver->frame.length] = byte;
        receiver->frame.length += 1U;
    } else {
        receiver->too_long = 1U;
    }
}

/* A zero came: what is there is a frame or it is not. */
static ts_event ended(ts_receiver *receiver)
{
    const uint32_t length = receiver->frame.length;
    const uint8_t begun = receiver->begun;
    const uint32_t broken = receiver->left | receiver->too_long;
    receiver->left = 0U;
    receiver->begun = 0U;
    receiver->zero_due = 0U;
    receiver->too_long = 0U;
    if (begun == 0U) {
        return TS_MORE;
    }
    if ((broken != 0U) || (length < (TS_HEAD + TS_CRC)) ||
        (ts_u32(&receiver->frame.body[length - TS_CRC]) != ts_crc32(receiver->frame.body, length - TS_CRC))) {
        return TS_DAMAGED;
    }
    receiver->frame.length = length - TS_CRC;
    return TS_FRAME;
}

ts_event ts_feed(ts_receiver *receiver, uint8_t byte)
{
    if (byte == 0U) {
        return ended(receiver);
    }
    if (receiver->begun == 0U) {
        receiver->begun = 1U;
        receiver->frame.length = 0U;
    }
    if (receiver->left == 0U) {
        if (receiver->zero_due != 0U) {
            keep(receiver, 0U);
        }
        receiver->left = (uint32_t)byte - 1U;
        receiver->zero_due = (byte <= LONGEST_RUN) ? 1U : 0U;
    } else {
        keep(receiver, byte);
        receiver->left -= 1U;
    }
    return TS_MORE;
}

void ts_begin(ts_frame *frame, uint8_t kind, uint8_t sequence)
{
    frame->body[0] = TS_VERSION;
    frame->body[1] = kind;
    frame->body[2] = sequence;
    frame->length = TS_HEAD;
}

int32_t ts_add(ts_frame *frame, const uint8_t *bytes, uint32_t count)
{
    uint32_t i;
    if (count > ((TS_HEAD + TS_PAYLOAD) - frame->length)) {
        return 0;
    }
    for (i = 0U; i < count; i++) {
        frame->body[frame->length + i] = bytes[i];
    }
    frame->length += count;
    return 1;
}

int32_t ts_add_u32(ts_frame *frame, uint32_t value)
{
    uint8_t bytes[4];
    uint32_t i;
    for (i = 0U; i < 4U; i++) {
        bytes[i] = (uint8_t)((value >> (8U * i)) & 0xFFU);
    }
    return ts_add(frame, bytes, 4U);
}

void ts_send(ts_frame *frame, void (*write)(uint8_t byte))
{
    const uint32_t crc = ts_crc32(frame->body, frame->length);
    const uint32_t end = frame->length + TS_CRC;
    uint32_t at = 0U;
    uint32_t i;
    int32_t more = 1;
    for (i = 0U; i < TS_CRC; i++) {
        frame->body[frame->length + i] = (uint8_t)((crc >> (8U * i)) & 0xFFU);
    }
    write(0U);
    while (more != 0) {
        uint32_t run = 0U;
        while (((at + run) < end) && (run < LONGEST_RUN) && (frame->body[at + run] != 0U)) {
            run++;
        }
        write((uint8_t)(run + 1U));
        for (i = 0U; i < run; i++) {
            write(frame->body[at + i]);
        }
        at += run;
        more = (at < end) ? 1 : 0;
        if (run < LONGEST_RUN) {
            at++; /* the zero that the length byte stands for */
        }
    }
    write(0U);
}
