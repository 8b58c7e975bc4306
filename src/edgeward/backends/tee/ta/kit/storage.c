/* What a device adds to the trusted application: the sealing key, the rollback counter and the count of
 * inferences in its secure storage.
 *
 * The key is put there once, in a place you trust, by a build with EDGEWARD_PROVISION=y (command 0xE0: 32 bytes in). The
 * counter is as hard to turn back as the storage behind it: RPMB yes, files of the normal world no. */
#include "configuration.h"
#include "copy.h"
#include "ta.h"

enum { KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16 };

static const char key_name[] = "edgeward.key", counter_name[] = "edgeward.counter", asked_name[] = "edgeward.asked";

static TEE_Result read_object(const char *name, size_t length, void *buffer, size_t size) {
    TEE_ObjectHandle object = TEE_HANDLE_NULL;
    size_t count = 0;
    TEE_Result result =
        TEE_OpenPersistentObject(TEE_STORAGE_PRIVATE, name, length, TEE_DATA_FLAG_ACCESS_READ, &object);
    if (result != TEE_SUCCESS) return result;
    result = TEE_ReadObjectData(object, buffer, size, &count);
    TEE_CloseObject(object);
    return result == TEE_SUCCESS && count != size ? TEE_ERROR_BAD_FORMAT : result;
}

static TEE_Result write_object(const char *name, size_t length, uint32_t flags, const void *buffer, size_t size) {
    TEE_ObjectHandle object = TEE_HANDLE_NULL;
    const TEE_Result result = TEE_CreatePersistentObject(TEE_STORAGE_PRIVATE, name, length, flags, TEE_HANDLE_NULL,
                                                         buffer, size, &object);
    if (result == TEE_SUCCESS) TEE_CloseObject(object);
    return result;
}

const struct edgeward_configuration *edgeward_configuration(void) {
    static const struct edgeward_configuration configuration = EDGEWARD_CONFIGURATION;
    return &configuration;
}

uint64_t edgeward_counter_floor(void) {
    const uint64_t configured = edgeward_configuration()->counter_floor;
    uint64_t stored = 0;
    const TEE_Result result = read_object(counter_name, sizeof counter_name - 1, &stored, sizeof stored);
    if (result == TEE_ERROR_ITEM_NOT_FOUND) return configured;
    if (result != TEE_SUCCESS) return UINT64_MAX; /* a counter that cannot be read must not open old blobs */
    return stored > configured ? stored : configured;
}

TEE_Result edgeward_accepted(uint64_t counter) {
    uint64_t stored = 0;
    const TEE_Result result = read_object(counter_name, sizeof counter_name - 1, &stored, sizeof stored);
    if (result == TEE_SUCCESS && stored >= counter) return TEE_SUCCESS;
    return write_object(counter_name, sizeof counter_name - 1, TEE_DATA_FLAG_ACCESS_WRITE | TEE_DATA_FLAG_OVERWRITE,
                        &counter, sizeof counter);
}

uint64_t edgeward_asked(void) {
    uint64_t stored = 0;
    const TEE_Result result = read_object(asked_name, sizeof asked_name - 1, &stored, sizeof stored);
    if (result == TEE_ERROR_ITEM_NOT_FOUND) return 0;
    return result == TEE_SUCCESS ? stored : UINT64_MAX; /* a count that cannot be read allows no inference */
}

TEE_Result edgeward_asking(uint64_t count) {
    return write_object(asked_name, sizeof asked_name - 1, TEE_DATA_FLAG_ACCESS_WRITE | TEE_DATA_FLAG_OVERWRITE, &count,
                        sizeof count);
}

static uint32_t decrypted(TEE_ObjectHandle key, const uint8_t *nonce, const uint8_t *associated,
                          uint32_t associated_size, uint8_t *data, uint32_t size) {
    TEE_OperationHandle operation = TEE_HANDLE_NULL;
    if (TEE_AllocateOperation(&operation, TEE_ALG_AES_GCM, TEE_MODE_DECRYPT, 8 * KEY_BYTES) != TEE_SUCCESS) return 0;
    size_t written = size;
    TEE_Result result = TEE_SetOperationKey(operation, key);
    if (result == TEE_SUCCESS) result = TEE_AEInit(operation, nonce, NONCE_BYTES, 8 * TAG_BYTES, associated_size, size);
    if (result == TEE_SUCCESS) {
        uint8_t tag[TAG_BYTES];
        TEE_AEUpdateAAD(operation, associated, associated_size);
        edgeward_copy(tag, data + size, TAG_BYTES);
        result = TEE_AEDecryptFinal(operation, data, size, data, &written, tag, TAG_BYTES);
    }
    TEE_FreeOperation(operation);
    return result == TEE_SUCCESS && written == size;
}

uint32_t edgeward_unseal(const uint8_t nonce[12], const uint8_t *associated, uint32_t associated_size, uint8_t *data,
                         uint32_t size) {
    uint8_t key[KEY_BYTES];
    TEE_ObjectHandle object = TEE_HANDLE_NULL;
    TEE_Attribute attribute;
    uint32_t authentic = 0;
    if (read_object(key_name, sizeof key_name - 1, key, sizeof key) != TEE_SUCCESS) return 0;
    TEE_InitRefAttribute(&attribute, TEE_ATTR_SECRET_VALUE, key, sizeof key);
    if (TEE_AllocateTransientObject(TEE_TYPE_AES, 8 * KEY_BYTES, &object) == TEE_SUCCESS) {
        if (TEE_PopulateTransientObject(object, &attribute, 1) == TEE_SUCCESS)
            authentic = decrypted(object, nonce, associated, associated_size, data, size);
        TEE_FreeTransientObject(object);
    }
    edgeward_wipe(key, sizeof key);
    return authentic;
}

#ifdef EDGEWARD_PROVISION
TEE_Result edgeward_provision(uint32_t types, TEE_Param params[4]) {
    uint8_t key[KEY_BYTES];
    if (types != TEE_PARAM_TYPE_MEMREF_INPUT || params[0].memref.size != sizeof key) return TEE_ERROR_BAD_PARAMETERS;
    edgeward_copy(key, params[0].memref.buffer, sizeof key);
    /* Without the overwrite flag a second key is refused. */
    const TEE_Result result =
        write_object(key_name, sizeof key_name - 1, TEE_DATA_FLAG_ACCESS_WRITE, key, sizeof key);
    edgeward_wipe(key, sizeof key);
    return result;
}
#endif
