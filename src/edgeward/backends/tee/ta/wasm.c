/* The wasm tier: the host writes a request and its data into the module's memory and calls in; the three imports are all
 * that the module can reach outside. */
#include "copy.h"
#include "emulation.h"

#define IMPORT(name) __attribute__((import_module("tee"), import_name(name)))

IMPORT("TEE_AEDecryptFinal")
uint32_t host_unseal(const uint8_t *nonce, const uint8_t *associated, uint32_t associated_size, uint8_t *data,
                     uint32_t size);
IMPORT("TEE_GenerateRandom") void host_random(void *buffer, uint32_t size);
IMPORT("TEE_GetSystemTime") uint64_t host_milliseconds(void);

#ifdef EDGEWARD_TEST_FORBIDDEN
void edgeward_forbidden(void) { __builtin_trap(); }
#endif

uint32_t edgeward_unseal(const uint8_t nonce[12], const uint8_t *associated, uint32_t associated_size, uint8_t *data,
                         uint32_t size) {
    return host_unseal(nonce, associated, associated_size, data, size);
}

void TEE_GenerateRandom(void *buffer, size_t size) { host_random(buffer, (uint32_t)size); }

void TEE_GetSystemTime(TEE_Time *time) {
    const uint64_t now = host_milliseconds();
    time->seconds = (uint32_t)(now / 1000);
    time->millis = (uint32_t)(now % 1000);
}

static struct edgeward_configuration configuration;
static struct edgeward_message letterbox;
static uint8_t *shared;
static uint32_t shared_size;

/* Fresh, zeroed memory of whole pages, or NULL where the host's limit says no. */
static uint8_t *grown(uint32_t bytes) {
    const uint32_t pages = bytes / 65536u + (bytes % 65536u != 0);
    const size_t before = __builtin_wasm_memory_grow(0, pages);
    return before == SIZE_MAX ? NULL : (uint8_t *)(before * 65536u);
}

struct edgeward_configuration *edgeward_configuration_address(void) {
    return &configuration;
}

struct edgeward_message *edgeward_letterbox_address(void) { return &letterbox; }

/* Takes the shared window and then the budget; returns the window's address, or 0 where there is no memory for it. */
uint8_t *edgeward_share(uint32_t bytes) {
    shared = grown(bytes);
    shared_size = shared ? bytes : 0;
    return shared;
}

TEE_Result edgeward_start(uint32_t budget) {
    uint8_t *base = grown(budget);
    if (!base) return TEE_ERROR_OUT_OF_MEMORY;
    edgeward_heap(base, budget);
    return edgeward_open(&configuration);
}

TEE_Result edgeward_invoke(void) {
    struct edgeward_message message;
    edgeward_copy(&message, &letterbox, sizeof message);
    edgeward_dispatch(&message, shared, shared_size);
    edgeward_copy(&letterbox, &message, sizeof message);
    return message.command;
}

void edgeward_stop(void) { edgeward_close(); }
