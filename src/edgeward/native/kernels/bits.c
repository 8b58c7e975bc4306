/* Bit-sliced words: transposes of 32 x 32 and 64 x 64 bit matrices, planes of whole arrays, one fused AND of shares,
 * look-ups in shared tables. */

#include <stdint.h>
#include <string.h>

#define DOOR __attribute__((visibility("default")))
#define TOGETHER 8 /* matrices side by side, so that vectors run across them */

/* Bit j of word i changes places with bit i of word j, by swapping quadrants of half the size at every level. */
#define TRANSPOSE(NAME, WORD, SIZE)                                                                                  \
    static void NAME(WORD m[SIZE][TOGETHER]) {                                                                       \
        WORD mask = (WORD)~(WORD)0 >> (SIZE / 2);                                                                    \
        for (int width = SIZE / 2; width; width /= 2, mask ^= (WORD)(mask << width))                                 \
            for (int i = 0; i < SIZE; i++) {                                                                         \
                if (i & width) continue;                                                                             \
                for (int l = 0; l < TOGETHER; l++) {                                                                 \
                    WORD swap = (WORD)((m[i][l] >> width) ^ m[i + width][l]) & mask;                                 \
                    m[i + width][l] ^= swap;                                                                         \
                    m[i][l] ^= (WORD)(swap << width);                                                                \
                }                                                                                                    \
            }                                                                                                        \
    }                                                                                                                \
    static void NAME##_all(WORD *words, int64_t matrices) {                                                          \
        WORD m[SIZE][TOGETHER];                                                                                      \
        for (int64_t first = 0; first < matrices; first += TOGETHER) {                                               \
            int64_t here = matrices - first < TOGETHER ? matrices - first : TOGETHER;                                \
            memset(m, 0, sizeof m);                                                                                  \
            for (int64_t l = 0; l < here; l++)                                                                       \
                for (int i = 0; i < SIZE; i++) m[i][l] = words[(first + l) * SIZE + i];                              \
            NAME(m);                                                                                                 \
            for (int64_t l = 0; l < here; l++)                                                                       \
                for (int i = 0; i < SIZE; i++) words[(first + l) * SIZE + i] = m[i][l];                              \
        }                                                                                                            \
    }

TRANSPOSE(transpose32, uint32_t, 32)
TRANSPOSE(transpose64, uint64_t, 64)

/* Transposes `matrices` bit matrices of `size` (32 or 64) words of that size, in place. */
DOOR void edgeward_transpose_bits(int32_t size, void *words, int64_t matrices) {
    if (size == 32)
        transpose32_all(words, matrices);
    else
        transpose64_all(words, matrices);
}

/* planes[i][w] bit j = bit i of values[64 w + j], for i < kept; `back` rebuilds the values, their other bits zero. */
DOOR void edgeward_slice_bits(int32_t kept, int32_t back, uint64_t *values, uint64_t *planes, int64_t count) {
    int64_t words = (count + 63) / 64;
    uint64_t m[64][TOGETHER];
    for (int64_t first = 0; first < words; first += TOGETHER) {
        int64_t here = words - first < TOGETHER ? words - first : TOGETHER;
        memset(m, 0, sizeof m);
        if (back) {
            for (int i = 0; i < kept; i++) memcpy(m[i], planes + i * words + first, (size_t)here * 8);
        } else {
            for (int64_t l = 0; l < here; l++)
                for (int64_t j = 0; j < 64 && 64 * (first + l) + j < count; j++) m[j][l] = values[64 * (first + l) + j];
        }
        transpose64(m);
        if (back) {
            for (int64_t l = 0; l < here; l++)
                for (int64_t j = 0; j < 64 && 64 * (first + l) + j < count; j++) values[64 * (first + l) + j] = m[j][l];
        } else {
            for (int i = 0; i < kept; i++) memcpy(planes + i * words + first, m[i], (size_t)here * 8);
        }
    }
}

/* z = c xor (d and b) xor (e and a), and xor (d and e) for the one party with `first`. */
DOOR void edgeward_beaver_and(int32_t first, const uint64_t *d, const uint64_t *e, const uint64_t *a,
                              const uint64_t *b, const uint64_t *c, uint64_t *z, int64_t words) {
    uint64_t mine = first ? ~0ULL : 0;
    for (int64_t i = 0; i < words; i++) z[i] = c[i] ^ (d[i] & (b[i] ^ (e[i] & mine))) ^ (e[i] & a[i]);
}

#define BLOCK 64 /* bytes side by side */

/* Halves the table of `entries` rows by one index bit after the other, the highest first; row 0 is what is left. */
static void look_up(uint8_t (*table)[BLOCK], int64_t entries, uint8_t (*index)[BLOCK], int64_t width) {
    for (int64_t bit = width - 1; bit >= 0; bit--) {
        entries /= 2;
        for (int64_t i = 0; i < entries; i++)
            for (int b = 0; b < BLOCK; b++) table[i][b] ^= (table[i][b] ^ table[i + entries][b]) & index[bit][b];
    }
}

/* Look-ups of public chunks in shared thermometer codes t_1 .. t_(2^w - 1), rows of `bytes`: for each of `count` chunks
 * less = t_(chunk + 1), with t_(2^w) = 0, and equal = t_chunk xor less, with t_0 = `one`. Chunks are 1 to 8 bits. */
DOOR void edgeward_look_up_chunks(const int64_t *widths, int64_t count, uint8_t one, const uint8_t *bits,
                                  const uint8_t *codes, uint8_t *less, uint8_t *equal, int64_t bytes) {
    uint8_t low[256][BLOCK], high[256][BLOCK], index[8][BLOCK];
    for (int64_t c = 0; c < count; c++) {
        int64_t entries = (int64_t)1 << widths[c];
        for (int64_t start = 0; start < bytes; start += BLOCK) {
            size_t here = (size_t)(bytes - start < BLOCK ? bytes - start : BLOCK);
            for (int64_t i = 0; i < widths[c]; i++) memcpy(index[i], bits + i * bytes + start, here);
            for (int64_t i = 0; i + 1 < entries; i++) {
                memcpy(low[i], codes + i * bytes + start, here);
                memcpy(high[i + 1], low[i], here);
            }
            memset(low[entries - 1], 0, BLOCK), memset(high[0], one, BLOCK);
            look_up(low, entries, index, widths[c]), look_up(high, entries, index, widths[c]);
            for (size_t b = 0; b < here; b++) high[0][b] ^= low[0][b];
            memcpy(less + c * bytes + start, low[0], here), memcpy(equal + c * bytes + start, high[0], here);
        }
        bits += widths[c] * bytes, codes += (entries - 1) * bytes;
    }
}
