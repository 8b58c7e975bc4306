/* Distributed comparison functions over fixed-key AES-128: the instructions AESENC and AESKEYGENASSIST, nothing of a
 * cipher's own. See native/dcf.py for the construction; no branch and no address depends on keys, seeds or values. */

#include <stdint.h>

#define DOOR __attribute__((visibility("default")))

#if defined(__x86_64__)
#include <immintrin.h>

#define AES __attribute__((target("aes,sse4.1")))
enum { LANES = 8, ROUNDS = 10 };
typedef struct { __m128i key[ROUNDS + 1]; } schedule;

AES static __m128i next_key(__m128i key, __m128i assist) {
    assist = _mm_shuffle_epi32(assist, 0xff);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    return _mm_xor_si128(key, assist);
}

AES static void expand(const void *key, schedule *s) {
    __m128i *k = s->key;
    k[0] = _mm_loadu_si128(key);
#define NEXT(I, CONSTANT) k[I + 1] = next_key(k[I], _mm_aeskeygenassist_si128(k[I], CONSTANT))
    NEXT(0, 0x01);
    NEXT(1, 0x02);
    NEXT(2, 0x04);
    NEXT(3, 0x08);
    NEXT(4, 0x10);
    NEXT(5, 0x20);
    NEXT(6, 0x40);
    NEXT(7, 0x80);
    NEXT(8, 0x1b);
    NEXT(9, 0x36);
}

/* out = AES(in) xor in, for LANES blocks. */
AES static inline void hash(const schedule *s, const __m128i *in, __m128i *out) {
    for (int j = 0; j < LANES; j++) out[j] = _mm_xor_si128(in[j], s->key[0]);
    for (int r = 1; r < ROUNDS; r++)
        for (int j = 0; j < LANES; j++) out[j] = _mm_aesenc_si128(out[j], s->key[r]);
    for (int j = 0; j < LANES; j++)
        out[j] = _mm_xor_si128(_mm_aesenclast_si128(out[j], s->key[ROUNDS]), in[j]);
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

AES static inline uint64_t low(__m128i x) { return (uint64_t)_mm_cvtsi128_si64(x); }
AES static inline __m128i word(uint64_t x) { return _mm_cvtsi64_si128((int64_t)x); }
AES static inline __m128i masked(__m128i x, uint64_t bit) {
    return _mm_and_si128(x, _mm_set1_epi64x(-(int64_t)bit));
}
/* Without the bits that are not part of a seed. */
AES static inline __m128i seed(__m128i x) { return _mm_andnot_si128(word(7), x); }

/* Bit `place` (below 128) of a block, without an address that depends on it. */
AES static inline uint64_t bit_at(__m128i block, uint64_t place) {
    uint64_t upper = -(place >> 6 & 1), from = (low(block) & ~upper) | ((uint64_t)_mm_extract_epi64(block, 1) & upper);
    return from >> (place & 63) & 1;
}

/* The block whose bits below `place` (at most 127) are ones. */
AES static inline __m128i below(uint64_t place) {
    uint64_t upper = -(place >> 6 & 1), part = ((uint64_t)1 << (place & 63)) - 1;
    return _mm_set_epi64x((int64_t)(part & upper), (int64_t)(part | upper));
}

AES static void evaluate(int party, int bits, int leaf, int64_t count, const uint64_t *x, const __m128i *roots,
                         const __m128i *words, const void *key, uint8_t *out) {
    schedule s;
    expand(key, &s);
    int levels = bits - leaf;
    for (int64_t first = 0; first < count; first += LANES) {
        int64_t at[LANES];
        uint64_t t[LANES], total[LANES];
        __m128i state[LANES], in[LANES], made[LANES];
        for (int j = 0; j < LANES; j++) {
            at[j] = least(first + j, count - 1);
            state[j] = seed(_mm_loadu_si128(roots + at[j]));
            t[j] = (uint64_t)party;
            total[j] = 0;
        }
        for (int level = 0; level < levels; level++) {
            uint64_t side[LANES];
            for (int j = 0; j < LANES; j++) {
                side[j] = x[at[j]] >> (bits - 1 - level) & 1;
                in[j] = _mm_xor_si128(state[j], word(side[j]));
            }
            hash(&s, in, made);
            for (int j = 0; j < LANES; j++) {
                __m128i correction = masked(_mm_loadu_si128(words + at[j] * (levels + 1) + level), t[j]);
                uint64_t flags = low(correction), own = low(made[j]);
                total[j] ^= (own >> 1 ^ flags >> 2) & 1;
                t[j] = (own ^ flags >> side[j]) & 1;
                state[j] = seed(_mm_xor_si128(made[j], correction));
            }
        }
        for (int j = 0; j < LANES; j++) in[j] = _mm_xor_si128(state[j], word(2));
        hash(&s, in, made);
        unsigned packed = 0;
        for (int j = 0; j < LANES; j++) {
            __m128i last = masked(_mm_loadu_si128(words + at[j] * (levels + 1) + levels), t[j]);
            uint64_t place = x[at[j]] & (((uint64_t)1 << leaf) - 1);
            packed |= (unsigned)((total[j] ^ bit_at(_mm_xor_si128(made[j], last), place)) & 1) << j;
        }
        out[first / LANES] = (uint8_t)packed;
    }
}

AES static void generate(int bits, int leaf, int64_t count, const uint64_t *alpha, const __m128i *roots,
                         const void *key, __m128i *words) {
    schedule s;
    expand(key, &s);
    int levels = bits - leaf;
    for (int64_t first = 0; first < count; first += LANES) {
        int64_t at[LANES];
        uint64_t t[2][LANES], sum[LANES];
        __m128i state[2][LANES], in[LANES], made[2][2][LANES];
        for (int j = 0; j < LANES; j++) {
            at[j] = least(first + j, count - 1);
            for (int b = 0; b < 2; b++) {
                state[b][j] = seed(_mm_loadu_si128(roots + b * count + at[j]));
                t[b][j] = (uint64_t)b;
            }
            sum[j] = 0;
        }
        for (int level = 0; level < levels; level++) {
            for (int b = 0; b < 2; b++)
                for (int side = 0; side < 2; side++) {
                    for (int j = 0; j < LANES; j++) in[j] = _mm_xor_si128(state[b][j], word((uint64_t)side));
                    hash(&s, in, made[b][side]);
                }
            for (int j = 0; j < LANES; j++) {
                uint64_t a = alpha[at[j]] >> (bits - 1 - level) & 1;
                __m128i left = _mm_xor_si128(made[0][0][j], made[1][0][j]);
                __m128i right = _mm_xor_si128(made[0][1][j], made[1][1][j]);
                /* kept goes on towards alpha, lost leaves it. */
                __m128i differ = masked(_mm_xor_si128(left, right), a);
                __m128i kept = _mm_xor_si128(left, differ), lost = _mm_xor_si128(right, differ);
                uint64_t value = (low(lost) >> 1 ^ sum[j] ^ a) & 1;
                uint64_t go_left = (low(left) ^ a ^ 1) & 1, go_right = (low(right) ^ a) & 1;
                sum[j] = (sum[j] ^ low(kept) >> 1 ^ value) & 1;
                __m128i common = seed(lost);
                _mm_storeu_si128(words + at[j] * (levels + 1) + level,
                                 _mm_xor_si128(common, word(go_left | go_right << 1 | value << 2)));
                uint64_t go = go_left ^ ((go_left ^ go_right) & -a);
                for (int b = 0; b < 2; b++) {
                    __m128i own = made[b][0][j];
                    own = _mm_xor_si128(own, masked(_mm_xor_si128(own, made[b][1][j]), a));
                    uint64_t was = t[b][j];
                    t[b][j] = (low(own) ^ (was & go)) & 1;
                    state[b][j] = seed(_mm_xor_si128(own, masked(common, was)));
                }
            }
        }
        for (int b = 0; b < 2; b++) {
            for (int j = 0; j < LANES; j++) in[j] = _mm_xor_si128(state[b][j], word(2));
            hash(&s, in, made[b][0]);
        }
        for (int j = 0; j < LANES; j++) {
            __m128i last = _mm_xor_si128(made[0][0][j], made[1][0][j]);
            last = _mm_xor_si128(last, masked(_mm_set1_epi64x(-1), sum[j]));
            last = _mm_xor_si128(last, below(alpha[at[j]] & (((uint64_t)1 << leaf) - 1)));
            _mm_storeu_si128(words + at[j] * (levels + 1) + levels, last);
        }
    }
}

DOOR int32_t edgeward_dcf_supports(void) { return __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1"); }

/* AES(in) xor in for `count` blocks. */
AES static void hash_all(const void *key, const __m128i *in, __m128i *out, int64_t count) {
    schedule s;
    __m128i from[LANES], made[LANES];
    expand(key, &s);
    for (int64_t first = 0; first < count; first += LANES) {
        for (int j = 0; j < LANES; j++) from[j] = _mm_loadu_si128(in + least(first + j, count - 1));
        hash(&s, from, made);
        for (int j = 0; j < LANES && first + j < count; j++) _mm_storeu_si128(out + first + j, made[j]);
    }
}

DOOR void edgeward_dcf_hash(const void *key, const void *in, void *out, int64_t count) {
    hash_all(key, in, out, count);
}

/* out[e / 8] bit e % 8 = this party's share of [x[e] < alpha[e]]; words [count][bits - leaf + 1] blocks. */
DOOR void edgeward_dcf_evaluate(int32_t party, int32_t bits, int32_t leaf, int64_t count, const uint64_t *x,
                                const void *roots, const void *words, const void *key, uint8_t *out) {
    evaluate(party, bits, leaf, count, x, roots, words, key, out);
}

/* roots [2][count] blocks -> words [count][bits - leaf + 1] blocks. */
DOOR void edgeward_dcf_generate(int32_t bits, int32_t leaf, int64_t count, const uint64_t *alpha, const void *roots,
                                const void *key, void *words) {
    generate(bits, leaf, count, alpha, roots, key, words);
}

#else

DOOR int32_t edgeward_dcf_supports(void) { return 0; }
DOOR void edgeward_dcf_hash(const void *key, const void *in, void *out, int64_t count) {
    (void)key, (void)in, (void)out, (void)count;
}
DOOR void edgeward_dcf_evaluate(int32_t party, int32_t bits, int32_t leaf, int64_t count, const uint64_t *x,
                                const void *roots, const void *words, const void *key, uint8_t *out) {
    (void)party, (void)bits, (void)leaf, (void)count, (void)x, (void)roots, (void)words, (void)key, (void)out;
}
DOOR void edgeward_dcf_generate(int32_t bits, int32_t leaf, int64_t count, const uint64_t *alpha, const void *roots,
                                const void *key, void *words) {
    (void)bits, (void)leaf, (void)count, (void)alpha, (void)roots, (void)key, (void)words;
}

#endif
