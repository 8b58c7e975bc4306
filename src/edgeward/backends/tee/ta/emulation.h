/* Emulated worlds: the memory budget, and messages of the normal world turned into calls of the trusted application. */
#ifndef EDGEWARD_EMULATION_H
#define EDGEWARD_EMULATION_H

#include "ta.h"

/* A request and, in place, its answer. A value is (a, b); a memory reference is (offset into the shared window, size). */
struct edgeward_message {
    uint32_t command; /* in the answer: the result */
    uint32_t types;
    struct {
        uint64_t a, b;
    } params[4];
};

/* Everything that TEE_Malloc may ever hand out. */
void edgeward_heap(void *base, size_t size);
/* No memory beyond this point. */
void edgeward_heap_close(void);

TEE_Result edgeward_open(const struct edgeward_configuration *configuration);
void edgeward_close(void);

/* `message` lies in secure memory: whoever calls has copied it there. */
void edgeward_dispatch(struct edgeward_message *message, uint8_t *shared, uint64_t shared_size);

#endif
