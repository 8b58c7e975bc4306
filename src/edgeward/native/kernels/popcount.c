/* Binary matrix product: out[i][j] = bits - 2 * popcount(a[i] xor w[j]).
 *
 * `a` is [p][k] words, `w` is [o][k] words. Every variant first reads `w` from `tiles`, where groups of 8 rows are
 * interleaved word by word, so that one word of `a` meets 8 words of `w` without a horizontal sum. All variants give
 * the same integers; which ones exist is a property of the build, which ones may run is a property of the processor. */

#include <stdint.h>
#include <string.h>

#define LANES 8
#define DOOR __attribute__((visibility("default")))

typedef void (*tile_kernel)(const uint64_t *a, const uint64_t *tile, int64_t k, uint64_t counts[LANES]);

static inline uint64_t swar_popcount(uint64_t x) {
    x -= (x >> 1) & 0x5555555555555555ULL;
    x = (x & 0x3333333333333333ULL) + ((x >> 2) & 0x3333333333333333ULL);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return (x * 0x0101010101010101ULL) >> 56;
}

static void interleave(const uint64_t *w, uint64_t *tiles, int64_t o, int64_t k) {
    int64_t groups = (o + LANES - 1) / LANES;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t t = 0; t < k; t++)
            for (int64_t l = 0; l < LANES; l++) {
                int64_t row = g * LANES + l;
                tiles[(g * k + t) * LANES + l] = row < o ? w[row * k + t] : 0;
            }
}

/* Writes one row of one tile, leaving out the lanes beyond the last output. */
static inline void store(const uint64_t counts[LANES], int32_t *out, int64_t first, int64_t o, int32_t bits) {
    int64_t lanes = o - first < LANES ? o - first : LANES;
    for (int64_t l = 0; l < lanes; l++) out[first + l] = bits - 2 * (int32_t)counts[l];
}

static void by_rows(tile_kernel kernel, const uint64_t *a, const uint64_t *tiles, int32_t *out, int64_t p, int64_t o,
                    int64_t k, int32_t bits) {
    uint64_t counts[LANES];
    for (int64_t first = 0; first < o; first += LANES)
        for (int64_t i = 0; i < p; i++) {
            kernel(a + i * k, tiles + first * k, k, counts);
            store(counts, out + i * o, first, o, bits);
        }
}

static void portable_tile(const uint64_t *a, const uint64_t *tile, int64_t k, uint64_t counts[LANES]) {
    memset(counts, 0, LANES * sizeof(uint64_t));
    for (int64_t t = 0; t < k; t++)
        for (int l = 0; l < LANES; l++) counts[l] += swar_popcount(a[t] ^ tile[t * LANES + l]);
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("popcnt"))) static void popcnt_tile(const uint64_t *a, const uint64_t *tile, int64_t k,
                                                          uint64_t counts[LANES]) {
    uint64_t sum[LANES] = {0};
    for (int64_t t = 0; t < k; t++)
        for (int l = 0; l < LANES; l++) sum[l] += (uint64_t)__builtin_popcountll(a[t] ^ tile[t * LANES + l]);
    memcpy(counts, sum, sizeof sum);
}

/* Nibble look-up with pshufb, then a sum of bytes per 64-bit lane (Mula, Kurz, Lemire 2018, section 2.3). */
__attribute__((target("avx2"))) static inline __m256i count_avx2(__m256i x) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1,
                                           2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(0x0f);
    __m256i bytes = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, low)),
                                    _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
    return _mm256_sad_epu8(bytes, _mm256_setzero_si256());
}

__attribute__((target("avx2"))) static void avx2_tile(const uint64_t *a, const uint64_t *tile, int64_t k,
                                                      uint64_t counts[LANES]) {
    __m256i left = _mm256_setzero_si256(), right = _mm256_setzero_si256();
    for (int64_t t = 0; t < k; t++) {
        __m256i word = _mm256_set1_epi64x((long long)a[t]);
        const __m256i *row = (const __m256i *)(tile + t * LANES);
        left = _mm256_add_epi64(left, count_avx2(_mm256_xor_si256(word, _mm256_loadu_si256(row))));
        right = _mm256_add_epi64(right, count_avx2(_mm256_xor_si256(word, _mm256_loadu_si256(row + 1))));
    }
    _mm256_storeu_si256((__m256i *)counts, left);
    _mm256_storeu_si256((__m256i *)(counts + 4), right);
}

#define AVX512 __attribute__((target("avx512f,avx512vpopcntdq")))

AVX512 static inline __m512i add_avx512(__m512i sum, uint64_t word, __m512i tile) {
    return _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_set1_epi64((long long)word), tile)));
}

AVX512 static void avx512_tile(const uint64_t *a, const uint64_t *tile, int64_t k, uint64_t counts[LANES]) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t t = 0; t < k; t++) sum = add_avx512(sum, a[t], _mm512_loadu_si512(tile + t * LANES));
    _mm512_storeu_si512(counts, sum);
}

/* Four rows of `a` share two tiles of `w`: eight independent sums hide the latency of the population count. */
AVX512 static void avx512_block(const uint64_t *a, const uint64_t *tile, int64_t k, uint64_t counts[8][LANES]) {
    __m512i sum[8];
    for (int s = 0; s < 8; s++) sum[s] = _mm512_setzero_si512();
    for (int64_t t = 0; t < k; t++) {
        __m512i first = _mm512_loadu_si512(tile + t * LANES), second = _mm512_loadu_si512(tile + (k + t) * LANES);
        for (int r = 0; r < 4; r++) {
            sum[2 * r] = add_avx512(sum[2 * r], a[r * k + t], first);
            sum[2 * r + 1] = add_avx512(sum[2 * r + 1], a[r * k + t], second);
        }
    }
    for (int s = 0; s < 8; s++) _mm512_storeu_si512(counts[s], sum[s]);
}

AVX512 static void by_blocks(const uint64_t *a, const uint64_t *tiles, int32_t *out, int64_t p, int64_t o, int64_t k,
                             int32_t bits) {
    uint64_t counts[8][LANES];
    int64_t rows = p - p % 4, first = 0;
    for (; first + LANES < o; first += 2 * LANES) {
        for (int64_t i = 0; i < rows; i += 4) {
            avx512_block(a + i * k, tiles + first * k, k, counts);
            for (int s = 0; s < 8; s++) store(counts[s], out + (i + s / 2) * o, first + (s % 2) * LANES, o, bits);
        }
        for (int64_t i = rows; i < p; i++)
            for (int half = 0; half < 2; half++) {
                int64_t start = first + half * LANES;
                avx512_tile(a + i * k, tiles + start * k, k, counts[0]);
                store(counts[0], out + i * o, start, o, bits);
            }
    }
    for (; first < o; first += LANES)
        for (int64_t i = 0; i < p; i++) {
            avx512_tile(a + i * k, tiles + first * k, k, counts[0]);
            store(counts[0], out + i * o, first, o, bits);
        }
}
#endif

#if defined(__aarch64__)
#include <arm_neon.h>

static void neon_tile(const uint64_t *a, const uint64_t *tile, int64_t k, uint64_t counts[LANES]) {
    uint64x2_t sum[4] = {vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0)};
    for (int64_t t = 0; t < k; t++) {
        uint64x2_t word = vdupq_n_u64(a[t]);
        for (int l = 0; l < 4; l++) {
            uint8x16_t x = vreinterpretq_u8_u64(veorq_u64(word, vld1q_u64(tile + t * LANES + 2 * l)));
            sum[l] = vpadalq_u32(sum[l], vpaddlq_u16(vpaddlq_u8(vcntq_u8(x))));
        }
    }
    for (int l = 0; l < 4; l++) vst1q_u64(counts + 2 * l, sum[l]);
}
#endif

/* Whether variant 0 portable, 1 popcnt, 2 avx2, 3 avx512, 4 neon may run on this processor. */
DOOR int32_t edgeward_popcount_supports(int32_t variant) {
    if (variant == 0) return 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (variant == 1) return __builtin_cpu_supports("popcnt") != 0;
    if (variant == 2) return __builtin_cpu_supports("avx2") != 0;
    if (variant == 3) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq");
#endif
#if defined(__aarch64__)
    if (variant == 4) return 1;
#endif
    return 0;
}

/* `tiles` is room for ceil(o / 8) * 8 * k words. Returns 0, or 1 where the variant may not run. */
DOOR int32_t edgeward_binary_matmul(int32_t variant, const uint64_t *a, const uint64_t *w, uint64_t *tiles,
                                    int32_t *out, int64_t p, int64_t o, int64_t k, int32_t bits) {
    if (!edgeward_popcount_supports(variant)) return 1;
    interleave(w, tiles, o, k);
    switch (variant) {
#if defined(__x86_64__)
        case 1: by_rows(popcnt_tile, a, tiles, out, p, o, k, bits); return 0;
        case 2: by_rows(avx2_tile, a, tiles, out, p, o, k, bits); return 0;
        case 3: by_blocks(a, tiles, out, p, o, k, bits); return 0;
#endif
#if defined(__aarch64__)
        case 4: by_rows(neon_tile, a, tiles, out, p, o, k, bits); return 0;
#endif
        default: by_rows(portable_tile, a, tiles, out, p, o, k, bits); return 0;
    }
}
