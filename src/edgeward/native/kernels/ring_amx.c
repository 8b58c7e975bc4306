/* Ring products on AMX: words in balanced base 256, x = sum_i x_i 2^(8 i) with digits in [-128, 127].
 *
 * (x + 0x80..80) xor 0x80..80 has digit i in its byte i. The products with i + j = s are summed in int32 (at most
 * 8 * 2^14 * kc < 2^31 for kc <= 8192, so exactly) and added to the result at bit 8 s. One tile is 32 x 32: two tiles
 * of A and two of B feed four sums. EDGEWARD_AMX_EMULATED replaces the six tile instructions by C, for tests. */

#if defined(__x86_64__)

#include "ring.h"

#include <immintrin.h>

#if defined(EDGEWARD_AMX_EMULATED)
#define HAS_AMX 1
#elif defined(__linux__) && defined(__clang__)
#define HAS_AMX (__clang_major__ >= 12)
#elif defined(__linux__) && defined(__GNUC__)
#define HAS_AMX (__GNUC__ >= 11)
#endif

#if HAS_AMX

#include <cpuid.h>
#include <sys/syscall.h>

#define DEEP 1024
#define TILE_BYTES 1024

#if defined(EDGEWARD_AMX_EMULATED)
#define AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
static _Thread_local int32_t emulated[8][256];
#define load_tile(T, P) memcpy(emulated[T], P, TILE_BYTES)
#define store_tile(T, P) memcpy(P, emulated[T], TILE_BYTES)
#define zero_tile(T) memset(emulated[T], 0, TILE_BYTES)
static void multiply_tiles(int c, int a, int b) {
    const int8_t *x = (const int8_t *)emulated[a], *y = (const int8_t *)emulated[b];
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++)
            for (int q = 0; q < 64; q++) emulated[c][16 * m + n] += x[64 * m + q] * y[64 * (q / 4) + 4 * n + q % 4];
}
static void begin(void) {}
static void end(void) {}
HIDDEN int ring_supports_amx(void) { return ring_supports_x86(RING_IFMA); }
#else
#define AMX __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl")))
#define load_tile(T, P) _tile_loadd(T, P, 64)
#define store_tile(T, P) _tile_stored(T, P, 64)
#define zero_tile(T) _tile_zero(T)
#define multiply_tiles(C, A, B) _tile_dpbssd(C, A, B)
AMX static void begin(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t columns[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.columns[i] = 64, shape.rows[i] = 16;
    _tile_loadconfig(&shape);
}
AMX static void end(void) { _tile_release(); }
long syscall(long number, ...); /* strict C11 hides it in <unistd.h> */

/* CPUID leaf 7 names AMX; the kernel lends the tile registers on request (arch_prctl, permission 18). */
static int lent(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 25 & 1)) return 0;
    if (!ring_supports_x86(RING_IFMA)) return 0;
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

/* Asked before every product, so the answer is kept: CPUID is slow in virtual machines. */
HIDDEN int ring_supports_amx(void) {
    static _Atomic int known;
    if (!known) known = 1 + lent();
    return known - 1;
}
#endif

/* A panel: [limb][k / 64][2][16 rows][64 digits]. */
static inline void pack_rows(const char *a, int64_t lda, int64_t rows, int64_t k, int8_t *to, int limbs) {
    int64_t blocks = (k + 63) / 64;
    memset(to, 0, (size_t)(limbs * blocks * 2 * TILE_BYTES));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < k; t++) {
            int8_t *cell = to + ((t / 64 * 2 + r / 16) * 16 + r % 16) * 64 + t % 64;
            uint64_t x = limbs == 8 ? ((const uint64_t *)a)[r * lda + t] : ((const uint32_t *)a)[r * lda + t];
            x = (x + 0x8080808080808080ULL) ^ 0x8080808080808080ULL;
            for (int i = 0; i < limbs; i++) cell[i * blocks * 2 * TILE_BYTES] = (int8_t)(x >> 8 * i);
        }
}

/* B panel: [limb][k / 64][2][16 groups of 4 k][16 columns][4 digits]; k is a multiple of 64. */
AMX static void pack_columns_64(const void *const *rows, int64_t k, void *panel) {
    const __m512i bias = _mm512_set1_epi64((long long)0x8080808080808080ULL);
    for (int64_t t = 0; t < k; t += 4)
        for (int half = 0; half < 2; half++) {
            char *cell = (char *)panel + (t / 64 * 2 + half) * TILE_BYTES + t % 64 / 4 * 64;
            __m512i x[4][2];
            for (int q = 0; q < 4; q++)
                for (int v = 0; v < 2; v++)
                    x[q][v] = _mm512_xor_si512(
                        _mm512_add_epi64(_mm512_loadu_si512((const uint64_t *)rows[t + q] + 16 * half + 8 * v), bias), bias);
            for (int i = 0; i < 8; i++) {
                __m512i out = _mm512_setzero_si512();
                for (int q = 0; q < 4; q++) {
                    __m256i l = _mm512_cvtepi64_epi32(x[q][0]), h = _mm512_cvtepi64_epi32(x[q][1]);
                    __m512i digit = _mm512_inserti64x4(_mm512_castsi256_si512(l), h, 1);
                    digit = _mm512_and_si512(digit, _mm512_set1_epi32(0xff));
                    out = _mm512_or_si512(out, _mm512_sll_epi32(digit, _mm_cvtsi32_si128(8 * q)));
                    x[q][0] = _mm512_srli_epi64(x[q][0], 8), x[q][1] = _mm512_srli_epi64(x[q][1], 8);
                }
                _mm512_storeu_si512(cell + i * (k / 64) * 2 * TILE_BYTES, out);
            }
        }
}

AMX static void pack_columns_32(const void *const *rows, int64_t k, void *panel) {
    const __m512i bias = _mm512_set1_epi32((int)0x80808080u);
    for (int64_t t = 0; t < k; t += 4)
        for (int half = 0; half < 2; half++) {
            char *cell = (char *)panel + (t / 64 * 2 + half) * TILE_BYTES + t % 64 / 4 * 64;
            for (int i = 0; i < 4; i++) {
                __m512i out = _mm512_setzero_si512();
                for (int q = 0; q < 4; q++) {
                    __m512i x = _mm512_loadu_si512((const uint32_t *)rows[t + q] + 16 * half);
                    x = _mm512_xor_si512(_mm512_add_epi32(x, bias), bias);
                    x = _mm512_and_si512(_mm512_srl_epi32(x, _mm_cvtsi32_si128(8 * i)), _mm512_set1_epi32(0xff));
                    out = _mm512_or_si512(out, _mm512_sll_epi32(x, _mm_cvtsi32_si128(8 * q)));
                }
                _mm512_storeu_si512(cell + i * (k / 64) * 2 * TILE_BYTES, out);
            }
        }
}

AMX static inline void tile(int64_t k, const char *a, const char *b, char *c, int64_t ldc, int limbs) {
    int64_t blocks = (k + 63) / 64;
    int32_t sums[4][256] __attribute__((aligned(64)));
    for (int s = 0; s < limbs; s++) {
        zero_tile(0);
        zero_tile(1);
        zero_tile(2);
        zero_tile(3);
        for (int i = 0; i <= s; i++) {
            const char *x = a + i * blocks * 2 * TILE_BYTES, *y = b + (s - i) * blocks * 2 * TILE_BYTES;
            for (int64_t t = 0; t < blocks; t++, x += 2 * TILE_BYTES, y += 2 * TILE_BYTES) {
                load_tile(4, x);
                load_tile(6, y);
                multiply_tiles(0, 4, 6);
                load_tile(7, y + TILE_BYTES);
                multiply_tiles(1, 4, 7);
                load_tile(5, x + TILE_BYTES);
                multiply_tiles(2, 5, 6);
                multiply_tiles(3, 5, 7);
            }
        }
        store_tile(0, sums[0]);
        store_tile(1, sums[1]);
        store_tile(2, sums[2]);
        store_tile(3, sums[3]);
        const __m128i shift = _mm_cvtsi32_si128(8 * s);
        for (int q = 0; q < 4; q++)
            for (int r = 0; r < 16; r++) {
                int64_t place = (16 * (q / 2) + r) * ldc + 16 * (q % 2);
                __m512i sum = _mm512_load_si512(sums[q] + 16 * r);
                if (limbs == 4) {
                    char *to = c + 4 * place;
                    _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), _mm512_sll_epi32(sum, shift)));
                } else {
                    char *to = c + 8 * place;
                    __m512i l = _mm512_sll_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(sum)), shift);
                    __m512i h = _mm512_sll_epi64(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sum, 1)), shift);
                    _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), l));
                    _mm512_storeu_si512(to + 64, _mm512_add_epi64(_mm512_loadu_si512(to + 64), h));
                }
            }
    }
}

#define ENTRY(BITS)                                                                                                  \
    static void pack_a_##BITS(const void *a, int64_t lda, int64_t rows, int64_t k, void *panel) {                    \
        pack_rows(a, lda, rows, k, panel, BITS / 8);                                                                 \
    }                                                                                                                \
    AMX static void tile_##BITS(int64_t k, const void *a, const void *b, void *c, int64_t ldc) {                     \
        tile(k, a, b, c, ldc, BITS / 8);                                                                             \
    }                                                                                                                \
    static void thin_##BITS(const void *a, int64_t count, const void *const *rows, int64_t columns, void *out) {     \
        ring_tiles_x86[RING_AVX512 - RING_AVX2][BITS == 64].thin(a, count, rows, columns, out);                      \
    }                                                                                                                \
    static void dot_##BITS(const void *a, const void *b, int64_t k, void *out) {                                     \
        ring_tiles_x86[RING_AVX512 - RING_AVX2][BITS == 64].dot(a, b, k, out);                                       \
    }
ENTRY(32)
ENTRY(64)

HIDDEN const ring_tile ring_tiles_amx[2] = {
    {32, 32, 64, 32 * 4, 32 * 4, DEEP, 128, pack_a_32, pack_columns_32, tile_32, thin_32, dot_32, begin, end},
    {32, 32, 64, 32 * 8, 32 * 8, DEEP, 128, pack_a_64, pack_columns_64, tile_64, thin_64, dot_64, begin, end},
};

#else

HIDDEN int ring_supports_amx(void) { return 0; }
HIDDEN const ring_tile ring_tiles_amx[2];

#endif
#endif
