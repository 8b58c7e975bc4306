/* Throws random messages at the trusted application under sanitizers: every block of memory it takes is an allocation of
 * its own and the shared window is exactly as long as it says. Prints "survived" when a known answer is still right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "application.h"
#include "emulation.h"

enum { SEALED = 64 + EDGEWARD_TA_WEIGHTS_BYTES + 8 + 16, WINDOW = SEALED + EDGEWARD_TA_ALL_INPUT_BYTES + 64 };

static uint64_t state = 88172645463325252u;

static uint64_t draw(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

void *TEE_Malloc(size_t size, uint32_t hint) {
    (void)hint;
    return calloc(1, size);
}

static uint32_t authentic = 1;

uint32_t edgeward_unseal(const uint8_t nonce[12], const uint8_t *associated, uint32_t associated_size, uint8_t *data,
                         uint32_t size) {
    volatile uint8_t seen = 0;
    for (uint32_t i = 0; i < 12; i++) seen ^= nonce[i];
    for (uint32_t i = 0; i < associated_size; i++) seen ^= associated[i];
    for (uint32_t i = 0; i < size + 16; i++) seen ^= data[i];
    return authentic;
}

void TEE_GenerateRandom(void *buffer, size_t size) { memset(buffer, 1, size); }

void TEE_GetSystemTime(TEE_Time *time) { time->seconds = time->millis = 0; }

static uint64_t size(void) {
    const uint64_t edges[] = {0, 1, 3, 4, 5, 64, SEALED, SEALED - 1, SEALED + 1, WINDOW, WINDOW + 1, WINDOW - 4,
                              EDGEWARD_TA_ALL_INPUT_BYTES, EDGEWARD_TA_OUTPUT_BYTES, UINT32_MAX, UINT64_MAX,
                              UINT64_MAX - 7, (uint64_t)1 << 32, (uint64_t)1 << 63};
    const uint64_t kind = draw() % 8;
    return kind < 6 ? edges[draw() % (sizeof edges / sizeof *edges)] : kind == 6 ? draw() % WINDOW : draw();
}

static uint32_t call(uint8_t *window, uint32_t command, uint32_t types, const uint64_t words[8], uint32_t fuzzed) {
    struct edgeward_message message = {.command = command, .types = types};
    for (int i = 0; i < 4; i++) message.params[i].a = words[2 * i], message.params[i].b = words[2 * i + 1];
    if (fuzzed)
        for (int i = 0; i < 16; i++) window[draw() % WINDOW] = (uint8_t)draw();
    edgeward_dispatch(&message, window, WINDOW);
    return message.command;
}

static uint32_t known(uint8_t *window) {
    const uint64_t words[8] = {0, EDGEWARD_TA_ALL_INPUT_BYTES, SEALED, 64};
    for (uint32_t i = 0; i < EDGEWARD_TA_ALL_INPUT_BYTES; i++) window[i] = (uint8_t)(i * 37 + 11);
    if (call(window, EDGEWARD_COMMAND_INFER, 0x65, words, 0)) return UINT32_MAX;
    uint32_t answer = 0;
    memcpy(&answer, window + SEALED, 4);
    return answer;
}

int main(int count, char **arguments) {
    const long rounds = count > 1 ? atol(arguments[1]) : 10000;
    const struct edgeward_configuration configuration = {.answer_is_label = EDGEWARD_TA_OUTPUT_BYTES == 4};
    uint8_t *window = malloc(WINDOW);
    uint8_t sealed[64] = {'E', 'W', 'S', 'B', 2, 0, 64};
    const uint32_t content = EDGEWARD_TA_WEIGHTS_BYTES + 8;
    const uint64_t blob[8] = {0, SEALED};
    for (uint32_t i = 0; i < WINDOW; i++) window[i] = (uint8_t)(i * 131 + (i >> 7));
    memcpy(window, sealed, sizeof sealed);
    for (int i = 0; i < 4; i++) window[60 + i] = (uint8_t)(content >> (8 * i));
    if (edgeward_open(&configuration)) return puts("not opened"), 1;
    for (long i = 0; i < rounds / 4; i++) { /* not loaded yet: every load is refused at the last step */
        uint64_t words[8];
        for (int k = 0; k < 8; k++) words[k] = size();
        authentic = 0;
        call(window, (uint32_t)(draw() % 4), draw() % 2 ? 0x25 : (uint32_t)draw() & 0xFFFF, words, 0);
    }
    authentic = 1;
    if (call(window, EDGEWARD_COMMAND_LOAD, 0x25, blob, 0)) return puts("not loaded"), 1;
    const uint32_t before = known(window);
    for (long i = 0; i < rounds; i++) {
        uint64_t words[8];
        for (int k = 0; k < 8; k++) words[k] = size();
        const uint32_t types[] = {0, 0x25, 0x65, 0x15, 0x56, 0x66, (uint32_t)draw(), (uint32_t)draw() & 0xFFFF};
        const uint32_t command = draw() % 8 ? (uint32_t)(draw() % 4) : (uint32_t)draw();
        call(window, command, types[draw() % 8], words, 1);
    }
    if (before == UINT32_MAX || known(window) != before) return puts("another answer than before"), 1;
    edgeward_close();
    puts("survived");
    return 0;
}
