/* The normal world's side: hands over the sealed weights and one record's taps, prints the answer.
 *
 *   edgeward-client weights.sealed taps.bin [REPEAT]     with REPEAT, also the mean time of an inference and of a no-op
 *   edgeward-client --provision key.bin                  once, against a provisioning build, in a place you trust */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tee_client_api.h>

#include "application.h"
#include "client.h"

static void *contents(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    long length = -1;
    if (!fseek(file, 0, SEEK_END)) length = ftell(file);
    uint8_t *bytes = length > 0 && !fseek(file, 0, SEEK_SET) ? malloc((size_t)length) : NULL;
    if (bytes && fread(bytes, 1, (size_t)length, file) != (size_t)length) free(bytes), bytes = NULL;
    fclose(file);
    *size = bytes ? (size_t)length : 0;
    return bytes;
}

static int failed(const char *doing, TEEC_Result result) {
    fprintf(stderr, "%s: TEE result 0x%08x\n", doing, (unsigned)result);
    return 1;
}

static double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static TEEC_Result hand_over(TEEC_Session *session, uint32_t command, void *data, size_t size, uint32_t second) {
    TEEC_Operation operation;
    uint32_t origin;
    memset(&operation, 0, sizeof operation);
    operation.paramTypes = TEEC_PARAM_TYPES(TEEC_MEMREF_TEMP_INPUT, second, TEEC_NONE, TEEC_NONE);
    operation.params[0].tmpref.buffer = data;
    operation.params[0].tmpref.size = size;
    return TEEC_InvokeCommand(session, command, &operation, &origin);
}

static int answer(TEEC_Context *context, TEEC_Session *session, const uint8_t *taps, long repeat) {
    /* Registered memory: a temporary reference costs about twice a whole switch. */
    TEEC_SharedMemory window;
    TEEC_Operation operation;
    uint32_t origin;
    memset(&window, 0, sizeof window);
    window.size = EDGEWARD_TA_ALL_INPUT_BYTES + EDGEWARD_ANSWER_BYTES;
    window.flags = TEEC_MEM_INPUT | TEEC_MEM_OUTPUT;
    TEEC_Result result = TEEC_AllocateSharedMemory(context, &window);
    if (result != TEEC_SUCCESS) return failed("shared memory", result);
    memset(&operation, 0, sizeof operation);
    operation.paramTypes =
        TEEC_PARAM_TYPES(TEEC_MEMREF_PARTIAL_INPUT, TEEC_MEMREF_PARTIAL_OUTPUT, TEEC_NONE, TEEC_NONE);
    operation.params[0].memref.parent = operation.params[1].memref.parent = &window;
    operation.params[0].memref.size = operation.params[1].memref.offset = EDGEWARD_TA_ALL_INPUT_BYTES;
    const double start = microseconds();
    for (long i = 0; i < repeat && result == TEEC_SUCCESS; i++) {
        memcpy(window.buffer, taps, EDGEWARD_TA_ALL_INPUT_BYTES);
        operation.params[1].memref.size = EDGEWARD_ANSWER_BYTES;
        result = TEEC_InvokeCommand(session, EDGEWARD_COMMAND_INFER, &operation, &origin);
    }
    const double spent = microseconds() - start;
    if (result == TEEC_SUCCESS) {
        const uint8_t *bytes = (const uint8_t *)window.buffer + EDGEWARD_TA_ALL_INPUT_BYTES;
        for (size_t i = 0; i < operation.params[1].memref.size; i++) printf("%02x", bytes[i]);
        printf("\n");
        if (repeat > 1) fprintf(stderr, "inference: %.1f us\n", spent / (double)repeat);
    }
    TEEC_ReleaseSharedMemory(&window);
    return result == TEEC_SUCCESS ? 0 : failed("inference", result);
}

static int noop(TEEC_Session *session, long repeat) {
    uint32_t origin;
    const double start = microseconds();
    for (long i = 0; i < repeat; i++) {
        const TEEC_Result result = TEEC_InvokeCommand(session, EDGEWARD_COMMAND_NOOP, NULL, &origin);
        if (result != TEEC_SUCCESS) return failed("no-op", result);
    }
    fprintf(stderr, "no-op: %.1f us\n", (microseconds() - start) / (double)repeat);
    return 0;
}

int main(int count, char **arguments) {
    if (count < 3) return fprintf(stderr, "usage: edgeward-client WEIGHTS TAPS [REPEAT] | --provision KEY\n"), 1;
    const int provision = !strcmp(arguments[1], "--provision");
    size_t size = 0, taps_size = EDGEWARD_TA_ALL_INPUT_BYTES;
    uint8_t *blob = contents(arguments[provision ? 2 : 1], &size);
    uint8_t *taps = provision ? blob : contents(arguments[2], &taps_size);
    if (!blob || !taps || taps_size != EDGEWARD_TA_ALL_INPUT_BYTES)
        return fprintf(stderr, "expected %u bytes of taps\n", (unsigned)EDGEWARD_TA_ALL_INPUT_BYTES), 1;
    const long repeat = !provision && count > 3 ? atol(arguments[3]) : 1;
    const TEEC_UUID uuid = EDGEWARD_UUID;
    TEEC_Context context;
    TEEC_Session session;
    uint32_t origin;
    TEEC_Result result = TEEC_InitializeContext(NULL, &context);
    if (result != TEEC_SUCCESS) return failed("no secure world here", result);
    result = TEEC_OpenSession(&context, &session, &uuid, TEEC_LOGIN_PUBLIC, NULL, NULL, &origin);
    if (result != TEEC_SUCCESS) return failed("the trusted application did not open", result);
    int status;
    if (provision) {
        result = hand_over(&session, EDGEWARD_COMMAND_PROVISION, blob, size, TEEC_NONE);
        status = result == TEEC_SUCCESS ? 0 : failed("provisioning", result);
    } else {
        result = hand_over(&session, EDGEWARD_COMMAND_LOAD, blob, size, TEEC_VALUE_OUTPUT);
        status = result == TEEC_SUCCESS ? answer(&context, &session, taps, repeat) : failed("sealed weights", result);
        if (!status && repeat > 1) status = noop(&session, repeat);
    }
    if (!provision) free(taps);
    free(blob);
    TEEC_CloseSession(&session);
    TEEC_FinalizeContext(&context);
    return status;
}
