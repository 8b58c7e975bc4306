/* The trusted application: weights arrive sealed, inputs are copied before they are looked at, and only what the policy
 * allows leaves. All memory is taken when the session opens. */
#include "application.h"
#include "copy.h"
#include "net.h"
#include "ta.h"

/* Memory is taken by the sizes of application.h and used by those of net.h. */
_Static_assert(EDGEWARD_TA_FITS_NET, "application.h is of another network than net.h");

/* The sealed blob's header; every field little endian. */
enum { MAGIC = 0, VERSION = 4, LENGTH = 6, COUNTER = 8, DIGEST = 16, NONCE = 48, CIPHERTEXT = 60, HEADER = 64, TAG = 16 };
/* Sealed are the weights and, behind them, the query limit: 8 bytes, little endian, 0 for none. */
enum { LIMIT = HEADER + EDGEWARD_TA_WEIGHTS_BYTES, CONTENT = EDGEWARD_TA_WEIGHTS_BYTES + 8, SEALED = HEADER + CONTENT + TAG };

static const uint32_t input_bytes[EDGEWARD_TA_INPUTS] = EDGEWARD_TA_INPUT_BYTES;

struct session {
    uint8_t *sealed; /* the header, then the weights, 64-byte aligned as the header has 64 bytes */
    uint8_t *arena;
    int8_t *inputs[EDGEWARD_TA_INPUTS];
    int8_t *outputs[1];
    uint64_t limit, asked; /* inferences that are allowed (0: any number), and those that were begun */
    uint32_t loaded;
    uint32_t fed; /* inputs of the coming inference that are here already */
};

static uint64_t little_endian(const uint8_t *bytes, uint32_t count) {
    uint64_t value = 0;
    for (uint32_t i = count; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

static uint32_t differs(const uint8_t *a, const uint8_t *b, uint32_t count) {
    uint32_t difference = 0;
    for (uint32_t i = 0; i < count; i++) difference |= (uint32_t)(a[i] ^ b[i]);
    return difference;
}

TEE_Result TA_CreateEntryPoint(void) { return TEE_SUCCESS; }

void TA_DestroyEntryPoint(void) {}

TEE_Result TA_OpenSessionEntryPoint(uint32_t types, TEE_Param params[4], void **session) {
    (void)params;
    if (types != 0) return TEE_ERROR_BAD_PARAMETERS;
    struct session *opened = TEE_Malloc(sizeof *opened, TEE_MALLOC_FILL_ZERO);
    if (!opened) return TEE_ERROR_OUT_OF_MEMORY;
    opened->loaded = 0;
    int complete = (opened->sealed = TEE_Malloc(SEALED, TEE_MALLOC_FILL_ZERO)) != NULL;
    complete = complete && (opened->arena = TEE_Malloc(EDGEWARD_TA_ARENA_BYTES, TEE_MALLOC_FILL_ZERO)) != NULL;
    complete = complete && (opened->outputs[0] = TEE_Malloc(EDGEWARD_TA_OUTPUT_BYTES, TEE_MALLOC_FILL_ZERO)) != NULL;
    for (uint32_t i = 0; complete && i < EDGEWARD_TA_INPUTS; i++)
        complete = (opened->inputs[i] = TEE_Malloc(input_bytes[i], TEE_MALLOC_FILL_ZERO)) != NULL;
    if (!complete) return TEE_ERROR_OUT_OF_MEMORY; /* the session's whole budget goes with the refused session */
    *session = opened;
    return TEE_SUCCESS;
}

void TA_CloseSessionEntryPoint(void *session) {
    struct session *closed = session;
    edgeward_wipe(closed->sealed, SEALED);
    edgeward_wipe(closed->arena, EDGEWARD_TA_ARENA_BYTES);
    edgeward_wipe(closed->outputs[0], EDGEWARD_TA_OUTPUT_BYTES);
    for (uint32_t i = 0; i < EDGEWARD_TA_INPUTS; i++) edgeward_wipe(closed->inputs[i], input_bytes[i]);
    closed->loaded = 0;
}

/* Judges and opens the blob that lies in secure memory already. */
static TEE_Result open_blob(struct session *session, uint64_t *counter) {
    uint8_t *blob = session->sealed;
    const uint8_t start[8] = {'E', 'W', 'S', 'B', 2, 0, HEADER, 0};
    if (differs(blob, start, sizeof start)) return TEE_ERROR_NOT_SUPPORTED;
    if (little_endian(blob + CIPHERTEXT, 4) != CONTENT) return TEE_ERROR_BAD_FORMAT;
    if (differs(blob + DIGEST, edgeward_configuration()->manifest_digest, 32)) return TEE_ERROR_SECURITY;
    *counter = little_endian(blob + COUNTER, 8);
    if (*counter < edgeward_counter_floor()) return TEE_ERROR_ACCESS_DENIED;
    uint8_t associated[40];
    edgeward_copy(associated, blob + DIGEST, 32);
    edgeward_copy(associated + 32, blob + COUNTER, 8);
    if (edgeward_unseal(blob + NONCE, associated, sizeof associated, blob + HEADER, CONTENT) != 1)
        return TEE_ERROR_MAC_INVALID;
    session->limit = little_endian(blob + LIMIT, 8);
    session->asked = session->limit ? edgeward_asked() : 0;
    return edgeward_accepted(*counter);
}

static TEE_Result load(struct session *session, uint32_t types, TEE_Param params[4]) {
    if (types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_MEMREF_INPUT, TEE_PARAM_TYPE_VALUE_OUTPUT, 0u, 0u))
        return TEE_ERROR_BAD_PARAMETERS;
    if (session->loaded) return TEE_ERROR_BAD_STATE;
    if (params[0].memref.size != SEALED) return TEE_ERROR_BAD_FORMAT;
    edgeward_copy(session->sealed, params[0].memref.buffer, SEALED);
    uint64_t counter = 0;
    const TEE_Result result = open_blob(session, &counter);
    if (result != TEE_SUCCESS) {
        edgeward_wipe(session->sealed, SEALED);
        return result;
    }
    session->loaded = 1;
    params[1].value.a = (uint32_t)counter;
    params[1].value.b = (uint32_t)(counter >> 32);
    return TEE_SUCCESS;
}

/* Writes the `count` best classes of `logits`, best first and the lowest index among equals, 4 bytes each. */
static void rank(const int8_t *logits, uint32_t classes, uint32_t count, uint8_t *answer) {
    int32_t previous = -1, bound = 128;
    for (uint32_t place = 0; place < count; place++) {
        int32_t best = -1, value = -129;
        for (uint32_t i = 0; i < classes; i++) {
            const int32_t candidate = logits[i];
            const int behind = candidate < bound || (candidate == bound && (int32_t)i > previous);
            if (behind && candidate > value) best = (int32_t)i, value = candidate;
        }
        previous = best, bound = value;
        for (uint32_t byte = 0; byte < 4; byte++) answer[4 * place + byte] = (uint8_t)((uint32_t)best >> (8 * byte));
    }
}

static TEE_Result feed(struct session *session, uint32_t types, TEE_Param params[4]) {
    if (types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_MEMREF_INPUT, TEE_PARAM_TYPE_VALUE_INPUT, 0u, 0u))
        return TEE_ERROR_BAD_PARAMETERS;
    const uint32_t place = params[1].value.a;
    if ((uint64_t)place + 1 >= EDGEWARD_TA_INPUTS) return TEE_ERROR_BAD_PARAMETERS;
    if (place != 0 && place != session->fed) return TEE_ERROR_BAD_STATE;
    if (params[0].memref.size != input_bytes[place]) return TEE_ERROR_BAD_PARAMETERS;
    edgeward_copy(session->inputs[place], params[0].memref.buffer, input_bytes[place]);
    session->fed = place + 1;
    return TEE_SUCCESS;
}

/* Copies what is missing of the inputs, or says that `size` is not its size. */
static TEE_Result take(struct session *session, const uint8_t *from, size_t size) {
    uint32_t missing = 0;
    if (size == EDGEWARD_TA_ALL_INPUT_BYTES) session->fed = 0;
    for (uint32_t i = session->fed; i < EDGEWARD_TA_INPUTS; i++) missing += input_bytes[i];
    if (size != missing) return TEE_ERROR_BAD_PARAMETERS;
    for (uint32_t i = session->fed; i < EDGEWARD_TA_INPUTS; from += input_bytes[i], i++)
        edgeward_copy(session->inputs[i], from, input_bytes[i]);
    session->fed = 0;
    return TEE_SUCCESS;
}

/* Counts an inference before it is begun, or refuses it: a count that cannot be kept allows nothing. */
static TEE_Result count(struct session *session) {
    if (!session->limit) return TEE_SUCCESS;
    if (session->asked >= session->limit) return TEE_ERROR_ACCESS_DENIED;
    const TEE_Result kept = edgeward_asking(session->asked + 1);
    if (kept != TEE_SUCCESS) return kept;
    session->asked++;
    return TEE_SUCCESS;
}

static TEE_Result infer(struct session *session, uint32_t types, TEE_Param params[4]) {
    if (types != TEE_PARAM_TYPES(TEE_PARAM_TYPE_MEMREF_INPUT, TEE_PARAM_TYPE_MEMREF_OUTPUT, 0u, 0u))
        return TEE_ERROR_BAD_PARAMETERS;
    const struct edgeward_configuration *configuration = edgeward_configuration();
    const uint32_t classes = EDGEWARD_TA_OUTPUT_BYTES;
    const uint32_t labels = configuration->policy == EDGEWARD_POLICY_LABEL ? 1u
                            : classes < EDGEWARD_TOP                       ? classes
                                                                           : EDGEWARD_TOP;
    const int whole = configuration->policy == EDGEWARD_POLICY_LOGITS;
    const size_t needed = whole ? classes : (size_t)labels * 4u;
    if (!session->loaded) return TEE_ERROR_BAD_STATE;
    const size_t room = params[1].memref.size;
    params[1].memref.size = needed;
    if (room < needed) return TEE_ERROR_SHORT_BUFFER;

    const TEE_Result taken = take(session, params[0].memref.buffer, params[0].memref.size);
    if (taken != TEE_SUCCESS) return taken;
    const TEE_Result counted = count(session);
    if (counted != TEE_SUCCESS) return counted;
    const int failed = edgeward_net_run(session->sealed + HEADER, (const int8_t *const *)session->inputs,
                                        (int8_t *const *)session->outputs, session->arena);
    if (failed) return TEE_ERROR_GENERIC;

    uint8_t *answer = params[1].memref.buffer;
    if (whole || configuration->answer_is_label) {
        edgeward_copy(answer, session->outputs[0], needed);
    } else {
        uint8_t ranks[4 * EDGEWARD_TOP];
        rank(session->outputs[0], classes, labels, ranks);
        edgeward_copy(answer, ranks, needed);
    }
    return TEE_SUCCESS;
}

TEE_Result TA_InvokeCommandEntryPoint(void *session, uint32_t command, uint32_t types, TEE_Param params[4]) {
    switch (command) {
    case EDGEWARD_COMMAND_NOOP:
        return types == 0 ? TEE_SUCCESS : TEE_ERROR_BAD_PARAMETERS;
    case EDGEWARD_COMMAND_LOAD:
        return load(session, types, params);
    case EDGEWARD_COMMAND_INFER:
        return infer(session, types, params);
    case EDGEWARD_COMMAND_FEED:
        return feed(session, types, params);
#ifdef EDGEWARD_PROVISION
    case EDGEWARD_COMMAND_PROVISION:
        return edgeward_provision(types, params);
#endif
#ifdef EDGEWARD_TEST_FORBIDDEN
    case EDGEWARD_COMMAND_FORBIDDEN:
        edgeward_forbidden();
        return TEE_SUCCESS;
#endif
    default:
        return TEE_ERROR_NOT_SUPPORTED;
    }
}
