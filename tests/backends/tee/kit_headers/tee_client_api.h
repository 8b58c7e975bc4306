/* Declarations only, after the GlobalPlatform TEE Client API 1.0: enough to check types, nothing to link. */
#ifndef TEE_CLIENT_API_H
#define TEE_CLIENT_API_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t TEEC_Result;
typedef struct {
    uint32_t timeLow;
    uint16_t timeMid, timeHiAndVersion;
    uint8_t clockSeqAndNode[8];
} TEEC_UUID;
typedef struct {
    int fd;
} TEEC_Context;
typedef struct {
    TEEC_Context *context;
} TEEC_Session;
typedef struct {
    void *buffer;
    size_t size;
    uint32_t flags;
} TEEC_SharedMemory;
typedef union {
    struct {
        void *buffer;
        size_t size;
    } tmpref;
    struct {
        TEEC_SharedMemory *parent;
        size_t size, offset;
    } memref;
    struct {
        uint32_t a, b;
    } value;
} TEEC_Parameter;
typedef struct {
    uint32_t started, paramTypes;
    TEEC_Parameter params[4];
} TEEC_Operation;

#define TEEC_SUCCESS 0
#define TEEC_LOGIN_PUBLIC 0
#define TEEC_MEM_INPUT 1
#define TEEC_MEM_OUTPUT 2
#define TEEC_NONE 0
#define TEEC_VALUE_OUTPUT 2
#define TEEC_MEMREF_TEMP_INPUT 5
#define TEEC_MEMREF_PARTIAL_INPUT 0xD
#define TEEC_MEMREF_PARTIAL_OUTPUT 0xE
#define TEEC_PARAM_TYPES(p0, p1, p2, p3) ((p0) | ((p1) << 4) | ((p2) << 8) | ((p3) << 12))

TEEC_Result TEEC_InitializeContext(const char *name, TEEC_Context *context);
void TEEC_FinalizeContext(TEEC_Context *context);
TEEC_Result TEEC_OpenSession(TEEC_Context *context, TEEC_Session *session, const TEEC_UUID *destination,
                             uint32_t method, const void *data, TEEC_Operation *operation, uint32_t *origin);
void TEEC_CloseSession(TEEC_Session *session);
TEEC_Result TEEC_InvokeCommand(TEEC_Session *session, uint32_t command, TEEC_Operation *operation, uint32_t *origin);
TEEC_Result TEEC_AllocateSharedMemory(TEEC_Context *context, TEEC_SharedMemory *memory);
void TEEC_ReleaseSharedMemory(TEEC_SharedMemory *memory);

#endif
