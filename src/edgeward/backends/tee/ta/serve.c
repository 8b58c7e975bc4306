/* The process tier: requests come over a sequenced-packet socket, data lies in a shared window. */
#define _DEFAULT_SOURCE
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "emulation.h"

#ifdef EDGEWARD_TEST_FORBIDDEN
#include <fcntl.h>

void edgeward_forbidden(void) { (void)open("/dev/null", O_RDONLY); }
#endif

typedef uint32_t unseal_function(const uint8_t *, const uint8_t *, uint32_t, uint8_t *, uint32_t);

static unseal_function *unseal;

uint32_t edgeward_unseal(const uint8_t nonce[12], const uint8_t *associated, uint32_t associated_size, uint8_t *data,
                         uint32_t size) {
    return unseal ? unseal(nonce, associated, associated_size, data, size) : 0;
}

void TEE_GenerateRandom(void *buffer, size_t size) {
    uint8_t *to = buffer;
    while (size) {
        const ssize_t got = getrandom(to, size, 0);
        if (got > 0) to += got, size -= (size_t)got;
    }
}

void TEE_GetSystemTime(TEE_Time *time) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    time->seconds = (uint32_t)now.tv_sec;
    time->millis = (uint32_t)(now.tv_nsec / 1000000);
}

__attribute__((visibility("default"))) TEE_Result edgeward_start(const struct edgeward_configuration *configuration,
                                                                 void *base, uint64_t size, unseal_function *with) {
    unseal = with;
    edgeward_heap(base, (size_t)size);
    return edgeward_open(configuration);
}

/* Answers until the other side hangs up. The request is copied by the kernel, so that nobody can change it afterwards. */
__attribute__((visibility("default"))) int edgeward_serve(int door, uint8_t *shared, uint64_t shared_size) {
    for (;;) {
        struct edgeward_message message;
        const ssize_t got = recv(door, &message, sizeof message, MSG_TRUNC);
        if (got <= 0) break;
        if ((size_t)got == sizeof message)
            edgeward_dispatch(&message, shared, shared_size);
        else
            message = (struct edgeward_message){.command = TEE_ERROR_BAD_PARAMETERS};
        if (send(door, &message, sizeof message, MSG_NOSIGNAL) != (ssize_t)sizeof message) break;
    }
    edgeward_close();
    return 0;
}
