/* What the trusted application needs from the world that it runs in, and its commands. */
#ifndef EDGEWARD_TA_H
#define EDGEWARD_TA_H

#include "tee_api.h"

/* No parameters; measures the way in and out. */
#define EDGEWARD_COMMAND_NOOP 0u
/* 0: memref in, the sealed blob; 1: value out, its rollback counter as (low, high). Once per session. */
#define EDGEWARD_COMMAND_LOAD 1u
/* 0: memref in, every input of the network that was not fed, one after the other; 1: memref out, what the policy lets
 * out. Every input at once starts afresh, whatever was fed. TEE_ERROR_ACCESS_DENIED beyond the sealed query limit. */
#define EDGEWARD_COMMAND_INFER 2u
/* 0: memref in, one input of the network; 1: value in, its number. In order, from 0; the last goes with INFER. */
#define EDGEWARD_COMMAND_FEED 3u
/* In provisioning builds for a device only. 0: memref in, the sealing key. */
#define EDGEWARD_COMMAND_PROVISION 0xE0u
/* In test builds only: tries what no secure world allows. */
#define EDGEWARD_COMMAND_FORBIDDEN 0xF0u

#define EDGEWARD_POLICY_LABEL 0u  /* one int32 */
#define EDGEWARD_POLICY_TOPK 1u   /* EDGEWARD_TOP int32, best first, or one per class where there are fewer */
#define EDGEWARD_POLICY_LOGITS 2u /* the network's int8 output as it is */
#define EDGEWARD_TOP 5u

/* Fixed when the session opens (emulated worlds) or when the application is built (a device's kit). */
struct edgeward_configuration {
    uint8_t manifest_digest[32];
    uint64_t counter_floor;
    uint64_t asked; /* inferences before this session, where the world keeps no count of its own */
    uint32_t policy;
    uint32_t answer_is_label; /* the network ends in arg-max: its output is one int32 and not one logit per byte */
};

const struct edgeward_configuration *edgeward_configuration(void);

/* Decrypts `size` bytes of ciphertext and the 16 bytes of its tag behind them in place with the device's sealing key
 * (AES-256-GCM). Returns 1 for an authentic blob, 0 otherwise: a callback that fails halfway says 0. */
uint32_t edgeward_unseal(const uint8_t nonce[12], const uint8_t *associated, uint32_t associated_size, uint8_t *data,
                         uint32_t size);

/* The lowest rollback counter accepted now: the configured one, or a higher one that the world has seen. */
uint64_t edgeward_counter_floor(void);

/* Called with the counter of every blob that was opened; a world with a storage of its own keeps it as the new floor. */
TEE_Result edgeward_accepted(uint64_t counter);

/* How many inferences the world has counted before this session; read where the sealed weights have a query limit. */
uint64_t edgeward_asked(void);

/* Called with the new count before each inference under a limit; whatever it does not keep, nobody may ask again. */
TEE_Result edgeward_asking(uint64_t count);

#ifdef EDGEWARD_PROVISION
TEE_Result edgeward_provision(uint32_t types, TEE_Param params[4]);
#endif

#ifdef EDGEWARD_TEST_FORBIDDEN
void edgeward_forbidden(void);
#endif

#endif
