/* The fastest this core can multiply and add ring words: the instructions of each variant on registers alone. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define STEPS 8
#define HIDE(X) __asm__ volatile("" : "+v"(X))

/* Returns the multiply-adds (of ring words) done; the caller takes the time. */
#define PLAIN(NAME, TARGET, WORD, BYTES, SUMS)                                        \
    typedef WORD NAME##_vector __attribute__((vector_size(BYTES)));                   \
    TARGET int64_t NAME(int64_t rounds, WORD *sink) {                                 \
        NAME##_vector a = {3}, b = {5}, s[SUMS];                                      \
        memset(s, 0, sizeof s);                                                       \
        for (int64_t r = 0; r < rounds; r++) {                                        \
            _Pragma("GCC unroll 16") for (int i = 0; i < SUMS; i++) {                 \
                HIDE(b);                                                              \
                s[i] += a * b;                                                        \
            }                                                                         \
        }                                                                             \
        for (int i = 0; i < SUMS; i++) *sink += s[i][0];                              \
        return rounds * SUMS * (int64_t)(BYTES / sizeof(WORD));                       \
    }

#define WIDE __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,avx512vnni")))
PLAIN(limit_avx2_32, __attribute__((target("avx2"))), uint32_t, 32, 10)
PLAIN(limit_avx2_64, __attribute__((target("avx2"))), uint64_t, 32, 8)
PLAIN(limit_avx512_32, __attribute__((target("avx512f,avx512dq"))), uint32_t, 64, 16)
PLAIN(limit_avx512_64, __attribute__((target("avx512f,avx512dq"))), uint64_t, 64, 16)

/* Three vpdpwssd for two steps of k of one vector of 16 words. */
WIDE int64_t limit_ifma_32(int64_t rounds, uint32_t *sink) {
    __m512i a = _mm512_set1_epi32(3), b = _mm512_set1_epi32(5), s[15];
    memset(s, 0, sizeof s);
    for (int64_t r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 16") for (int i = 0; i < 15; i++) s[i] = _mm512_dpwssd_epi32(s[i], a, b);
        HIDE(a);
    }
    for (int i = 0; i < 15; i++) *sink += (uint32_t)_mm512_reduce_add_epi32(s[i]);
    return rounds * 15 * 32 / 3;
}

/* Four vpmadd52 and one vpdpwssd for two vectors of 8 words. */
WIDE int64_t limit_ifma_64(int64_t rounds, uint64_t *sink) {
    __m512i a = _mm512_set1_epi64(3), b = _mm512_set1_epi64(5), s[20];
    memset(s, 0, sizeof s);
    for (int64_t r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 4") for (int i = 0; i < 20; i += 5) {
            s[i] = _mm512_madd52lo_epu64(s[i], a, b);
            s[i + 1] = _mm512_madd52lo_epu64(s[i + 1], a, b);
            s[i + 2] = _mm512_madd52hi_epu64(s[i + 2], a, b);
            s[i + 3] = _mm512_madd52hi_epu64(s[i + 3], a, b);
            s[i + 4] = _mm512_dpwssd_epi32(s[i + 4], a, b);
        }
        HIDE(a);
    }
    for (int i = 0; i < 20; i++) *sink += (uint64_t)_mm512_reduce_add_epi64(s[i]);
    return rounds * 4 * 16;
}
