/* Additive shares modulo 2^bits, kept in 32- or 64-bit words: what a party does with an array it has opened, in one
 * pass, because memory and not arithmetic bounds it. No branch and no address depends on the values. */

#include <stdint.h>

#define DOOR __attribute__((visibility("default")))

/* What came is added to what was sent and truncated: see `truncation.py`. `top` holds the share of the mask's top bit
 * modulo 2^shift or more. `m` comes with the other party's share and leaves as the share of the quotient. */
#define TRUNCATE(NAME, TARGET, WORD, TOP)                                                                            \
    TARGET static void NAME(const WORD *restrict mine, WORD *restrict m, const WORD *restrict high,                  \
                            const TOP *restrict top, int64_t count, int shift, int bits, int first) {                \
        const WORD ring = (WORD)~(WORD)0 >> (8 * (int)sizeof(WORD) - bits), own = (WORD) - (WORD)first;              \
        const WORD offset = ((WORD)1 << (bits - 2)) >> shift;                                                        \
        for (int64_t i = 0; i < count; i++) {                                                                        \
            WORD opened = (mine[i] + m[i]) & ring;                                                                   \
            WORD wrapped = (WORD)top[i] & ((opened >> (bits - 1)) - 1);                                              \
            m[i] = (((wrapped << (bits - shift)) - high[i]) + (((opened >> shift) - offset) & own)) & ring;          \
        }                                                                                                            \
    }

/* The left factor of a product of two secret matrices, over `a`: see `matrices.py`. Rows of two halves. */
#define TURN(NAME, TARGET, WORD)                                                                                     \
    TARGET static void NAME(const WORD *restrict mine, const WORD *restrict theirs, WORD *restrict a, int64_t rows,  \
                            int64_t half, int first) {                                                               \
        for (int64_t r = 0; r < rows; r++, mine += 2 * half, theirs += 2 * half, a += 2 * half)                      \
            if (first)                                                                                               \
                for (int64_t i = 0; i < half; i++) {                                                                 \
                    WORD e1 = mine[i] + theirs[i], e2 = mine[half + i] + theirs[half + i];                           \
                    a[i] += e2;                                                                                      \
                    a[half + i] += e1 + e2;                                                                          \
                }                                                                                                    \
            else                                                                                                     \
                for (int64_t i = 0; i < half; i++) {                                                                 \
                    WORD e1 = mine[i] + theirs[i], e2 = mine[half + i] + theirs[half + i];                           \
                    a[i] += e1 - e2;                                                                                 \
                    a[half + i] -= e1;                                                                               \
                }                                                                                                    \
    }

#define ADD_BOTH(NAME, TARGET, WORD)                                                                                 \
    TARGET static void NAME(const WORD *restrict mine, const WORD *restrict theirs, WORD *restrict sum,              \
                            int64_t count) {                                                                         \
        for (int64_t i = 0; i < count; i++) sum[i] += mine[i] + theirs[i];                                           \
    }

#define FORMS(NAME, TARGET)                                                                                          \
    TRUNCATE(NAME##_truncate_32_8, TARGET, uint32_t, uint8_t)                                                        \
    TRUNCATE(NAME##_truncate_32_16, TARGET, uint32_t, uint16_t)                                                      \
    TRUNCATE(NAME##_truncate_32_32, TARGET, uint32_t, uint32_t)                                                      \
    TRUNCATE(NAME##_truncate_64_8, TARGET, uint64_t, uint8_t)                                                        \
    TRUNCATE(NAME##_truncate_64_16, TARGET, uint64_t, uint16_t)                                                      \
    TRUNCATE(NAME##_truncate_64_32, TARGET, uint64_t, uint32_t)                                                      \
    TRUNCATE(NAME##_truncate_64_64, TARGET, uint64_t, uint64_t)                                                      \
    TURN(NAME##_turn_32, TARGET, uint32_t)                                                                           \
    TURN(NAME##_turn_64, TARGET, uint64_t)                                                                           \
    ADD_BOTH(NAME##_add_32, TARGET, uint32_t)                                                                        \
    ADD_BOTH(NAME##_add_64, TARGET, uint64_t)                                                                        \
    static void NAME##_truncate(int word, int top_bytes, const void *mine, void *m, const void *high,                \
                                const void *top, int64_t count, int shift, int bits, int first) {                    \
        if (word == 4) {                                                                                             \
            if (top_bytes == 1) NAME##_truncate_32_8(mine, m, high, top, count, shift, bits, first);                 \
            if (top_bytes == 2) NAME##_truncate_32_16(mine, m, high, top, count, shift, bits, first);                \
            if (top_bytes == 4) NAME##_truncate_32_32(mine, m, high, top, count, shift, bits, first);                \
        } else {                                                                                                     \
            if (top_bytes == 1) NAME##_truncate_64_8(mine, m, high, top, count, shift, bits, first);                 \
            if (top_bytes == 2) NAME##_truncate_64_16(mine, m, high, top, count, shift, bits, first);                \
            if (top_bytes == 4) NAME##_truncate_64_32(mine, m, high, top, count, shift, bits, first);                \
            if (top_bytes == 8) NAME##_truncate_64_64(mine, m, high, top, count, shift, bits, first);                \
        }                                                                                                            \
    }

FORMS(plain, )
#if defined(__x86_64__)
FORMS(avx2, __attribute__((target("avx2"))))
FORMS(avx512, __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl"))))
#define CALL(FORM, ...)                                                                                              \
    (wide() == 2 ? avx512_##FORM(__VA_ARGS__) : wide() ? avx2_##FORM(__VA_ARGS__) : plain_##FORM(__VA_ARGS__))

static int wide(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return 2;
    return __builtin_cpu_supports("avx2") != 0;
}
#else
#define CALL(FORM, ...) plain_##FORM(__VA_ARGS__)
#endif

/* `word` and `top_bytes`: bytes of an element and of a top share. */
DOOR void edgeward_shares_truncate(int32_t word, int32_t top_bytes, const void *mine, void *m, const void *high,
                                   const void *top, int64_t count, int32_t shift, int32_t bits, int32_t first) {
    CALL(truncate, word, top_bytes, mine, m, high, top, count, shift, bits, first);
}

DOOR void edgeward_shares_turn(int32_t word, const void *mine, const void *theirs, void *a, int64_t rows, int64_t half,
                               int32_t first) {
    if (word == 4)
        CALL(turn_32, mine, theirs, a, rows, half, first);
    else
        CALL(turn_64, mine, theirs, a, rows, half, first);
}

DOOR void edgeward_shares_add(int32_t word, const void *mine, const void *theirs, void *sum, int64_t count) {
    if (word == 4)
        CALL(add_32, mine, theirs, sum, count);
    else
        CALL(add_64, mine, theirs, sum, count);
}
