/* The emulated worlds' half of the API: memory, one session, and messages checked before the application sees them. */
#include "emulation.h"

#include "copy.h"

static uint8_t *heap;
static size_t heap_size, heap_used, heap_last;

void edgeward_heap(void *base, size_t size) {
    const size_t skipped = (64u - ((uintptr_t)base & 63u)) & 63u;
    heap = (uint8_t *)base + skipped;
    heap_size = size < skipped ? 0 : size - skipped;
    heap_used = heap_last = 0;
}

void edgeward_heap_close(void) { heap_size = heap_used; }

void *TEE_Malloc(size_t size, uint32_t hint) {
    (void)hint;
    if (size == 0) size = 1;
    const size_t start = (heap_used + 63u) & ~(size_t)63u;
    if (start < heap_used || start > heap_size || size > heap_size - start) return NULL;
    heap_last = start;
    heap_used = start + size;
    edgeward_wipe(heap + start, size);
    return heap + start;
}

void TEE_Free(void *buffer) {
    if (buffer && buffer == heap + heap_last && heap_used > heap_last) heap_used = heap_last;
}

void TEE_MemMove(void *destination, const void *source, size_t size) {
    uint8_t *to = destination;
    const uint8_t *from = source;
    const uintptr_t distance = (uintptr_t)to - (uintptr_t)from;
    if (distance == 0) return;
    if (distance >= size && (uintptr_t)from - (uintptr_t)to >= size) {
        edgeward_copy(to, from, size);
    } else if (to < from) {
        for (size_t i = 0; i < size; i++) to[i] = from[i];
    } else {
        for (size_t i = size; i-- > 0;) to[i] = from[i];
    }
}

void TEE_MemFill(void *buffer, uint8_t value, size_t size) {
    uint8_t *to = buffer;
    for (size_t i = 0; i < size; i++) {
        to[i] = value;
        __asm__ volatile("" ::: "memory");
    }
}

static struct edgeward_configuration configured;
static void *session;

const struct edgeward_configuration *edgeward_configuration(void) { return &configured; }

uint64_t edgeward_counter_floor(void) { return configured.counter_floor; }

/* An emulated world keeps its counter outside, where whoever opens the next session reads it. */
TEE_Result edgeward_accepted(uint64_t counter) {
    (void)counter;
    return TEE_SUCCESS;
}

uint64_t edgeward_asked(void) { return configured.asked; }

/* So with the count of inferences: whoever drives the session keeps it before it asks. */
TEE_Result edgeward_asking(uint64_t count) {
    (void)count;
    return TEE_SUCCESS;
}

TEE_Result edgeward_open(const struct edgeward_configuration *configuration) {
    TEE_Param none[4] = {{{NULL, 0}}, {{NULL, 0}}, {{NULL, 0}}, {{NULL, 0}}};
    edgeward_copy(&configured, configuration, sizeof configured);
    TEE_Result result = TA_CreateEntryPoint();
    if (result == TEE_SUCCESS) result = TA_OpenSessionEntryPoint(0, none, &session);
    edgeward_heap_close();
    return result;
}

void edgeward_close(void) {
    if (!session) return;
    TA_CloseSessionEntryPoint(session);
    TA_DestroyEntryPoint();
    session = NULL;
}

static int is_value(uint32_t type) { return type >= TEE_PARAM_TYPE_VALUE_INPUT && type <= TEE_PARAM_TYPE_VALUE_INOUT; }

static int is_memref(uint32_t type) { return type >= TEE_PARAM_TYPE_MEMREF_INPUT && type <= TEE_PARAM_TYPE_MEMREF_INOUT; }

/* Turns the message's parameters into the application's, or says that one points outside the window. */
static TEE_Result read_params(const struct edgeward_message *message, uint8_t *shared, uint64_t shared_size,
                              TEE_Param params[4]) {
    if (message->types >> 16) return TEE_ERROR_BAD_PARAMETERS;
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t type = TEE_PARAM_TYPE_GET(message->types, i);
        const uint64_t a = message->params[i].a, b = message->params[i].b;
        params[i].memref.buffer = NULL;
        params[i].memref.size = 0;
        if (is_memref(type)) {
            if (a > shared_size || b > shared_size - a || b > SIZE_MAX) return TEE_ERROR_BAD_PARAMETERS;
            params[i].memref.buffer = shared + a;
            params[i].memref.size = (size_t)b;
        } else if (is_value(type)) {
            if ((a | b) >> 32) return TEE_ERROR_BAD_PARAMETERS;
            params[i].value.a = type == TEE_PARAM_TYPE_VALUE_OUTPUT ? 0 : (uint32_t)a;
            params[i].value.b = type == TEE_PARAM_TYPE_VALUE_OUTPUT ? 0 : (uint32_t)b;
        } else if (type != TEE_PARAM_TYPE_NONE) {
            return TEE_ERROR_BAD_PARAMETERS;
        }
    }
    return TEE_SUCCESS;
}

/* Output values, and the size written or needed of output memory; nothing else goes back. */
static void write_params(struct edgeward_message *message, const TEE_Param params[4]) {
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t type = TEE_PARAM_TYPE_GET(message->types, i);
        if (type == TEE_PARAM_TYPE_VALUE_OUTPUT || type == TEE_PARAM_TYPE_VALUE_INOUT) {
            message->params[i].a = params[i].value.a;
            message->params[i].b = params[i].value.b;
        } else if (type == TEE_PARAM_TYPE_MEMREF_OUTPUT || type == TEE_PARAM_TYPE_MEMREF_INOUT) {
            message->params[i].b = params[i].memref.size;
        }
    }
}

void edgeward_dispatch(struct edgeward_message *message, uint8_t *shared, uint64_t shared_size) {
    TEE_Param params[4];
    TEE_Result result = session ? read_params(message, shared, shared_size, params) : TEE_ERROR_BAD_STATE;
    if (result == TEE_SUCCESS) {
        result = TA_InvokeCommandEntryPoint(session, message->command, message->types, params);
        write_params(message, params);
    }
    message->command = result;
}
