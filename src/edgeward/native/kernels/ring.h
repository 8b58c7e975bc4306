/* Matrix products modulo 2^32 and 2^64: what the variants give to the one blocked product of ring.c.
 *
 * All arithmetic is modulo the ring, so the order of summation does not matter and every variant gives the same bits.
 * No branch and no address depends on the values: only on shapes. */

#ifndef EDGEWARD_RING_H
#define EDGEWARD_RING_H

#include <stdint.h>
#include <string.h>

#define HIDDEN __attribute__((visibility("hidden")))
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define UP(a, b) (((a) + (b)-1) / (b) * (b))

enum { RING_C, RING_AVX2, RING_AVX512, RING_IFMA, RING_AMX, RING_VARIANTS };

/* One register tile: mr rows of A times nr columns of B, k in steps of `kstep` (the packers fill up with zeros). */
typedef struct {
    int64_t mr, nr, kstep, a_bytes, b_bytes; /* panel bytes per unit of k, for the whole tile */
    int64_t kc, mc;                          /* block sizes: k per panel, rows per packed block */
    void (*pack_a)(const void *a, int64_t lda, int64_t rows, int64_t k, void *panel);
    void (*pack_b)(const void *const *rows, int64_t k, void *panel); /* 0: the rows as they are, nr words each */
    void (*tile)(int64_t k, const void *a, const void *b, void *c, int64_t ldc); /* c += a b, a whole tile */
    void (*thin)(const void *a, int64_t count, const void *const *rows, int64_t columns, void *out);
    void (*dot)(const void *a, const void *b, int64_t k, void *out);
    void (*begin)(void);
    void (*end)(void);
} ring_tile;

/* [0] for 32-bit, [1] for 64-bit words; `ring_supports` says whether the processor runs the variant. */
HIDDEN extern const ring_tile ring_tiles_x86[RING_AMX - RING_AVX2][2];
HIDDEN extern const ring_tile ring_tiles_amx[2];
HIDDEN int ring_supports_x86(int variant);
HIDDEN int ring_supports_amx(void);

/* The right-hand matrix: a stored one, or the patches of an image [channels][height][width] zero outside. */
typedef struct {
    const char *data;
    int64_t word, stride; /* bytes per word; words per row of a stored matrix */
    int64_t height, width, kernel_h, kernel_w, step_h, step_w, pad_h, pad_w, gap_h, gap_w, out_w;
    int image;
} ring_source;

/* `bytes` of every row of a panel, from `from` on in the strip, to place `to` of the row. */
typedef struct {
    int64_t to, from, bytes;
} ring_run;

/* The lines of an image that a block of columns reads, with their zeros around, the pixels of a line sorted by their
 * place modulo the step: so a row of patches is a few runs of neighbouring words. Bytes and places in bytes. */
typedef struct {
    const char *lines; /* the strip, or a stored matrix itself */
    char *room;
    int64_t *places; /* where row t of the matrix begins */
    ring_run *runs;
    int64_t panel, channels, wide, line, height, first, count; /* `count` runs */
} ring_strip;

/* What may be read behind a strip, and written behind the last row of a copy: copies go in whole pieces. */
enum { RING_PIECE = 64, RING_SLACK = 512 };

HIDDEN char *ring_room(int64_t bytes);
HIDDEN int ring_open_strip(ring_strip *, const ring_source *, int64_t k, int64_t n, int64_t block, int64_t panel);
HIDDEN void ring_load_strip(ring_strip *, const ring_source *, int64_t j, int64_t columns);
HIDDEN void ring_close_strip(ring_strip *);

/* Stores elements j .. j + count - 1 of rows first .. first + k - 1, `columns` apart; what lies behind `count` in a row
 * is left as it happens to be. */
HIDDEN void ring_copy_rows(ring_strip *, const ring_source *, int64_t first, int64_t k, int64_t j, int64_t count,
                           int64_t columns, char *to);

/* Points rows[0..k) at `columns` readable elements each, of which the first `count` are the matrix's. */
HIDDEN void ring_find_rows(ring_strip *, const ring_source *, int64_t first, int64_t k, int64_t j, int64_t count,
                           int64_t columns, char *room, const void **rows);

/* A tile in plain words: A panels hold mr words per k, B panels nr words per k. VBYTES is the vector's size. What the
 * tile is added to is fetched while the product is computed: it may come from far. */
#define PLAIN_TILE(NAME, TARGET, WORD, VBYTES, MR, NV)                                                                \
    typedef WORD NAME##_vector __attribute__((vector_size(VBYTES), aligned(sizeof(WORD)), may_alias));               \
    enum { NAME##_lanes = VBYTES / sizeof(WORD), NAME##_nr = NAME##_lanes * NV };                                     \
    static void NAME##_pack_a(const void *from, int64_t lda, int64_t rows, int64_t k, void *panel) {                 \
        const WORD *a = from;                                                                                        \
        WORD *to = panel;                                                                                            \
        for (int64_t t = 0; t < k; t++)                                                                              \
            for (int64_t r = 0; r < MR; r++) *to++ = r < rows ? a[r * lda + t] : 0;                                  \
    }                                                                                                                \
    TARGET static void NAME##_tile(int64_t k, const void *pa, const void *pb, void *pc, int64_t ldc) {               \
        const WORD *a = pa, *b = pb;                                                                                 \
        WORD *c = pc;                                                                                                \
        NAME##_vector sum[MR][NV];                                                                                   \
        _Pragma("GCC unroll 16") for (int r = 0; r < MR; r++)                                                        \
            _Pragma("GCC unroll 16") for (int v = 0; v < NV; v++)                                                    \
                __builtin_prefetch(c + r * ldc + v * NAME##_lanes, 1);                                               \
        _Pragma("GCC unroll 16") for (int r = 0; r < MR; r++)                                                        \
            _Pragma("GCC unroll 16") for (int v = 0; v < NV; v++) sum[r][v] = (NAME##_vector){0};                    \
        for (int64_t t = 0; t < k; t++, a += MR, b += NAME##_nr) {                                                   \
            NAME##_vector row[NV];                                                                                   \
            _Pragma("GCC unroll 16") for (int v = 0; v < NV; v++)                                                    \
                row[v] = *(const NAME##_vector *)(b + v * NAME##_lanes);                                             \
            _Pragma("GCC unroll 16") for (int r = 0; r < MR; r++)                                                    \
                _Pragma("GCC unroll 16") for (int v = 0; v < NV; v++) sum[r][v] += a[r] * row[v];                    \
        }                                                                                                            \
        _Pragma("GCC unroll 16") for (int r = 0; r < MR; r++)                                                        \
            _Pragma("GCC unroll 16") for (int v = 0; v < NV; v++)                                                    \
                *(NAME##_vector *)(c + r * ldc + v * NAME##_lanes) += sum[r][v];                                     \
    }                                                                                                                \
    TARGET static void NAME##_thin(const void *pa, int64_t count, const void *const *rows, int64_t columns,          \
                                   void *out) {                                                                      \
        const WORD *a = pa;                                                                                          \
        WORD *restrict c = out;                                                                                      \
        for (int64_t t = 0; t < count; t++) {                                                                        \
            const WORD *row = rows[t];                                                                               \
            WORD factor = a[t];                                                                                      \
            for (int64_t j = 0; j < columns; j++) c[j] += factor * row[j];                                           \
        }                                                                                                            \
    }                                                                                                                \
    TARGET static void NAME##_dot(const void *pa, const void *pb, int64_t k, void *out) {                            \
        const WORD *a = pa, *b = pb;                                                                                 \
        WORD sum = 0;                                                                                                \
        for (int64_t t = 0; t < k; t++) sum += a[t] * b[t];                                                          \
        *(WORD *)out += sum;                                                                                         \
    }

#define PLAIN_ENTRY(NAME, WORD, MR, KC)                                                                              \
    {MR, NAME##_nr, 1, MR * sizeof(WORD), NAME##_nr * sizeof(WORD), KC, 8 * MR, NAME##_pack_a, 0, NAME##_tile,       \
     NAME##_thin, NAME##_dot, 0, 0}

#endif
