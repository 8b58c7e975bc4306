/* The part of the GlobalPlatform TEE Internal Core API that the trusted application uses, for the emulated worlds.
 * Names and codes are the specification's; against a device's own kit this file is replaced by one line that includes
 * the kit's header. Whatever is not declared here does not exist in an emulated secure world. */
#ifndef EDGEWARD_TEE_API_H
#define EDGEWARD_TEE_API_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t TEE_Result;

typedef union {
    struct {
        void *buffer;
        size_t size;
    } memref;
    struct {
        uint32_t a, b;
    } value;
} TEE_Param;

typedef struct {
    uint32_t seconds, millis;
} TEE_Time;

#define TEE_SUCCESS 0x00000000u
#define TEE_ERROR_GENERIC 0xFFFF0000u
#define TEE_ERROR_ACCESS_DENIED 0xFFFF0001u
#define TEE_ERROR_BAD_FORMAT 0xFFFF0005u
#define TEE_ERROR_BAD_PARAMETERS 0xFFFF0006u
#define TEE_ERROR_BAD_STATE 0xFFFF0007u
#define TEE_ERROR_NOT_SUPPORTED 0xFFFF000Au
#define TEE_ERROR_OUT_OF_MEMORY 0xFFFF000Cu
#define TEE_ERROR_SECURITY 0xFFFF000Fu
#define TEE_ERROR_SHORT_BUFFER 0xFFFF0010u
#define TEE_ERROR_TARGET_DEAD 0xFFFF3024u
#define TEE_ERROR_MAC_INVALID 0xFFFF3071u

#define TEE_PARAM_TYPE_NONE 0u
#define TEE_PARAM_TYPE_VALUE_INPUT 1u
#define TEE_PARAM_TYPE_VALUE_OUTPUT 2u
#define TEE_PARAM_TYPE_VALUE_INOUT 3u
#define TEE_PARAM_TYPE_MEMREF_INPUT 5u
#define TEE_PARAM_TYPE_MEMREF_OUTPUT 6u
#define TEE_PARAM_TYPE_MEMREF_INOUT 7u
#define TEE_PARAM_TYPES(t0, t1, t2, t3) ((t0) | ((t1) << 4) | ((t2) << 8) | ((t3) << 12))
#define TEE_PARAM_TYPE_GET(types, i) (((types) >> ((i) * 4)) & 0xFu)

#define TEE_MALLOC_FILL_ZERO 0u

/* Zeroed memory out of the session's budget, 64-byte aligned; NULL beyond it and after the session is open. */
void *TEE_Malloc(size_t size, uint32_t hint);
/* Gives back the most recent allocation; any other stays until the session ends. */
void TEE_Free(void *buffer);
void TEE_MemMove(void *destination, const void *source, size_t size);
void TEE_MemFill(void *buffer, uint8_t value, size_t size);
void TEE_GenerateRandom(void *buffer, size_t size);
void TEE_GetSystemTime(TEE_Time *time);

TEE_Result TA_CreateEntryPoint(void);
void TA_DestroyEntryPoint(void);
TEE_Result TA_OpenSessionEntryPoint(uint32_t types, TEE_Param params[4], void **session);
void TA_CloseSessionEntryPoint(void *session);
TEE_Result TA_InvokeCommandEntryPoint(void *session, uint32_t command, uint32_t types, TEE_Param params[4]);

#endif
