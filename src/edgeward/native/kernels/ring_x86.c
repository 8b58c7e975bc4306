/* Register tiles of the ring product for AVX2, AVX-512 and AVX-512 with IFMA and VNNI. */

#if defined(__x86_64__)

#include "ring.h"

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512dq")))
#define IFMA __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512ifma,avx512vnni")))

PLAIN_TILE(avx2_32, AVX2, uint32_t, 32, 6, 2)
PLAIN_TILE(avx2_64, AVX2, uint64_t, 32, 4, 2)
PLAIN_TILE(avx512_32, AVX512, uint32_t, 64, 8, 3)
PLAIN_TILE(avx512_64, AVX512, uint64_t, 64, 8, 3)

/* The multiply-adds as instructions: GCC 12 stores the sums of the intrinsics to the stack in every step. */
#define MULTIPLY_ADD(OP, SUM, X, Y) __asm__(OP " %2, %1, %0" : "+v"(SUM) : "v"(X), "v"(Y))

/* 32-bit words in signed 16-bit halves, x = low + 2^16 high: x y = low low' + 2^16 (low high' + high low') mod 2^32.
 * vpdpwssd adds two 16-bit products per lane: one for two steps of low low', one per step for the two mixed products.
 * Its 32-bit sums wrap, which is the ring. */
enum { HALF_MR = 6, HALF_NV = 2, HALF_NR = 16 * HALF_NV };

static inline uint32_t low_high(uint32_t x) { return (x & 0xffffu) | ((x + 0x8000u) & 0xffff0000u); }

static void half_pack_a(const void *from, int64_t lda, int64_t rows, int64_t k, void *panel) {
    const uint32_t *a = from;
    uint32_t *to = panel;
    for (int64_t t = 0; t < k; t += 2, to += 3 * HALF_MR)
        for (int64_t r = 0; r < HALF_MR; r++) {
            uint32_t x = r < rows ? a[r * lda + t] : 0, y = r < rows && t + 1 < k ? a[r * lda + t + 1] : 0;
            to[r] = (x & 0xffffu) | (y << 16);
            to[HALF_MR + r] = low_high(x);
            to[2 * HALF_MR + r] = low_high(y);
        }
}

IFMA static void half_pack_b(const void *const *rows, int64_t k, void *panel) {
    __m512i *to = panel;
    const __m512i half = _mm512_set1_epi32(0x8000), low = _mm512_set1_epi32(0xffff);
    for (int64_t t = 0; t < k; t += 2, to += 3 * HALF_NV)
        for (int v = 0; v < HALF_NV; v++) {
            __m512i x = _mm512_loadu_si512((const uint32_t *)rows[t] + 16 * v);
            __m512i y = _mm512_loadu_si512((const uint32_t *)rows[t + 1] + 16 * v);
            to[v] = _mm512_or_si512(_mm512_and_si512(x, low), _mm512_slli_epi32(y, 16));
            to[HALF_NV + v] =
                _mm512_or_si512(_mm512_srli_epi32(_mm512_add_epi32(x, half), 16), _mm512_slli_epi32(x, 16));
            to[2 * HALF_NV + v] =
                _mm512_or_si512(_mm512_srli_epi32(_mm512_add_epi32(y, half), 16), _mm512_slli_epi32(y, 16));
        }
}

IFMA static void half_tile(int64_t k, const void *pa, const void *pb, void *pc, int64_t ldc) {
    const int32_t *a = pa;
    const __m512i *b = pb;
    __m512i low[HALF_MR][HALF_NV], mixed[HALF_MR][HALF_NV];
#pragma GCC unroll 16
    for (int r = 0; r < HALF_MR; r++)
#pragma GCC unroll 16
        for (int v = 0; v < HALF_NV; v++) low[r][v] = mixed[r][v] = _mm512_setzero_si512();
    for (int64_t t = 0; t < k; t += 2, a += 3 * HALF_MR, b += 3 * HALF_NV) {
#pragma GCC unroll 16
        for (int r = 0; r < HALF_MR; r++)
#pragma GCC unroll 16
            for (int v = 0; v < HALF_NV; v++)
                MULTIPLY_ADD("vpdpwssd", low[r][v], b[v], _mm512_set1_epi32(a[r]));
#pragma GCC unroll 2
        for (int step = 1; step < 3; step++)
#pragma GCC unroll 16
            for (int r = 0; r < HALF_MR; r++)
#pragma GCC unroll 16
                for (int v = 0; v < HALF_NV; v++)
                    MULTIPLY_ADD("vpdpwssd", mixed[r][v], b[step * HALF_NV + v], _mm512_set1_epi32(a[step * HALF_MR + r]));
    }
#pragma GCC unroll 16
    for (int r = 0; r < HALF_MR; r++)
#pragma GCC unroll 16
        for (int v = 0; v < HALF_NV; v++) {
            uint32_t *c = (uint32_t *)pc + r * ldc + 16 * v;
            __m512i sum = _mm512_add_epi32(low[r][v], _mm512_slli_epi32(mixed[r][v], 16));
            _mm512_storeu_si512(c, _mm512_add_epi32(_mm512_loadu_si512(c), sum));
        }
}

/* 64-bit words as x = x0 + 2^52 x1: x y = lo52(x0 y0) + 2^52 (hi52(x0 y0) + x0 y1 + x1 y0) mod 2^64. Only 12 bits of
 * the second bracket count, so its mixed part is one vpdpwssd on the low 12 bits of x0, y0 and on x1, y1. */
enum { IFMA_MR = 5, IFMA_NR = 16, IFMA_A = 64, IFMA_B = 8 * IFMA_NR + 4 * IFMA_NR };

static void ifma_pack_a(const void *from, int64_t lda, int64_t rows, int64_t k, void *panel) {
    const uint64_t *a = from;
    for (int64_t t = 0; t < k; t++) {
        uint64_t *whole = (uint64_t *)((char *)panel + t * IFMA_A);
        uint32_t *mixed = (uint32_t *)(whole + IFMA_MR);
        for (int64_t r = 0; r < IFMA_MR; r++) {
            uint64_t x = r < rows ? a[r * lda + t] : 0;
            whole[r] = x;
            mixed[r] = (uint32_t)(x & 0xfff) | (uint32_t)(x >> 52) << 16;
        }
    }
}

IFMA static void ifma_pack_b(const void *const *rows, int64_t k, void *panel) {
    for (int64_t t = 0; t < k; t++) {
        char *to = (char *)panel + t * IFMA_B;
        for (int v = 0; v < 2; v++) {
            __m512i x = _mm512_loadu_si512((const uint64_t *)rows[t] + 8 * v);
            _mm512_store_si512(to + 64 * v, x);
            __m512i low = _mm512_slli_epi64(_mm512_and_si512(x, _mm512_set1_epi64(0xfff)), 16);
            __m512i mixed = _mm512_or_si512(_mm512_srli_epi64(x, 52), low);
            _mm256_store_si256((__m256i *)(to + 128 + 32 * v), _mm512_cvtepi64_epi32(mixed));
        }
    }
}

IFMA static void ifma_tile(int64_t k, const void *pa, const void *pb, void *pc, int64_t ldc) {
    __m512i low[IFMA_MR][2], high[IFMA_MR][2], mixed[IFMA_MR];
#pragma GCC unroll 16
    for (int r = 0; r < IFMA_MR; r++)
        low[r][0] = low[r][1] = high[r][0] = high[r][1] = mixed[r] = _mm512_setzero_si512();
    const char *a = pa, *b = pb;
    for (int64_t t = 0; t < k; t++, a += IFMA_A, b += IFMA_B) {
        __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + 64), bm = _mm512_load_si512(b + 128);
#pragma GCC unroll 16
        for (int r = 0; r < IFMA_MR; r++) {
            __m512i x = _mm512_set1_epi64(((const int64_t *)a)[r]);
            MULTIPLY_ADD("vpmadd52luq", low[r][0], b0, x);
            MULTIPLY_ADD("vpmadd52luq", low[r][1], b1, x);
            MULTIPLY_ADD("vpmadd52huq", high[r][0], b0, x);
            MULTIPLY_ADD("vpmadd52huq", high[r][1], b1, x);
            MULTIPLY_ADD("vpdpwssd", mixed[r], bm, _mm512_set1_epi32(((const int32_t *)(a + 8 * IFMA_MR))[r]));
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < IFMA_MR; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            uint64_t *c = (uint64_t *)pc + r * ldc + 8 * v;
            __m256i part = v ? _mm512_extracti64x4_epi64(mixed[r], 1) : _mm512_castsi512_si256(mixed[r]);
            __m512i top = _mm512_slli_epi64(_mm512_add_epi64(high[r][v], _mm512_cvtepu32_epi64(part)), 52);
            __m512i sum = _mm512_add_epi64(low[r][v], top);
            _mm512_storeu_si512(c, _mm512_add_epi64(_mm512_loadu_si512(c), sum));
        }
}

HIDDEN const ring_tile ring_tiles_x86[RING_AMX - RING_AVX2][2] = {
    {PLAIN_ENTRY(avx2_32, uint32_t, 6, 512), PLAIN_ENTRY(avx2_64, uint64_t, 4, 256)},
    {PLAIN_ENTRY(avx512_32, uint32_t, 8, 256), PLAIN_ENTRY(avx512_64, uint64_t, 8, 256)},
    {{HALF_MR, HALF_NR, 2, 6 * HALF_MR, 6 * HALF_NR, 256, 16 * HALF_MR, half_pack_a, half_pack_b, half_tile,
      avx512_32_thin, avx512_32_dot, 0, 0},
     {IFMA_MR, IFMA_NR, 1, IFMA_A, IFMA_B, 192, 16 * IFMA_MR, ifma_pack_a, ifma_pack_b, ifma_tile, avx512_64_thin,
      avx512_64_dot, 0, 0}},
};

HIDDEN int ring_supports_x86(int variant) {
    __builtin_cpu_init();
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    if (variant == RING_AVX2) return __builtin_cpu_supports("avx2") != 0;
    if (variant == RING_AVX512) return wide;
    if (variant == RING_IFMA)
        return wide && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vnni");
    return 0;
}

#endif
