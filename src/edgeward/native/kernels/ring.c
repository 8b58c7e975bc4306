/* Products and convolutions modulo 2^32 and 2^64: packing and blocking. The rows of the right-hand matrix come from
 * ring_source.c; the register tiles are in ring_x86.c and ring_amx.c, the portable one is here. */

#include "ring.h"

#include <stdlib.h>

#define DOOR __attribute__((visibility("default")))
#define NC 1024
#define THIN_ROWS 3
#define NARROW_COLUMNS 4
#define THIN_COLUMNS 512
#define THIN_DEPTH 64

PLAIN_TILE(c32, , uint32_t, 16, 4, 2)
PLAIN_TILE(c64, , uint64_t, 16, 4, 2)
static const ring_tile tiles_c[2] = {PLAIN_ENTRY(c32, uint32_t, 4, 512), PLAIN_ENTRY(c64, uint64_t, 4, 256)};

static void add_part(const char *from, int64_t nr, char *c, int64_t ldc, int64_t rows, int64_t columns, int64_t word) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < columns; j++) {
            if (word == 8)
                ((uint64_t *)c)[r * ldc + j] += ((const uint64_t *)from)[r * nr + j];
            else
                ((uint32_t *)c)[r * ldc + j] += ((const uint32_t *)from)[r * nr + j];
        }
}

/* c += a b for the rows of B that start at `from`, `columns` words each. */
static void thin_rows(const ring_tile *v, const char *a, const ring_strip *p, int64_t from, char *c, int64_t m, int64_t k,
                      int64_t n, int64_t columns, int64_t word) {
    const void *rows[THIN_DEPTH];
    for (int64_t t = 0; t < k; t += THIN_DEPTH) {
        int64_t depth = LEAST(THIN_DEPTH, k - t);
        for (int64_t r = 0; r < depth; r++) rows[r] = p->lines + p->places[t + r] + from;
        for (int64_t i = 0; i < m; i++) v->thin(a + (i * k + t) * word, depth, rows, columns, c + i * n * word);
    }
}

/* Few rows of A: every row of B is read once and added, without packing. */
static void thin_product(const ring_tile *v, const char *a, const ring_source *s, ring_strip *p, char *c, int64_t m,
                         int64_t k, int64_t n) {
    int64_t word = s->word;
    for (int64_t j = 0; j < n; j += THIN_COLUMNS) {
        int64_t columns = LEAST(THIN_COLUMNS, n - j);
        ring_load_strip(p, s, j, columns);
        for (int64_t r = 0; r < p->count; r++)
            thin_rows(v, a, p, p->runs[r].from, c + j * word + p->runs[r].to, m, k, n, p->runs[r].bytes / word, word);
    }
}

static void copy_column(const ring_source *s, int64_t j, int64_t k, char *to) {
    for (int64_t t = 0; t < k; t++)
        memcpy(to + t * s->word, s->data + (t * s->stride + j) * s->word, (size_t)s->word);
}

/* Few columns of a stored B: dot products of the rows of A with each column. */
static int narrow_product(const ring_tile *v, const char *a, const ring_source *s, char *c, int64_t m, int64_t k,
                          int64_t n) {
    int64_t word = s->word;
    char *column = ring_room(k * word);
    if (!column) return 2;
    for (int64_t j = 0; j < n; j++) {
        copy_column(s, j, k, column);
        for (int64_t i = 0; i < m; i++) v->dot(a + i * k * word, column, k, c + (i * n + j) * word);
    }
    free(column);
    return 0;
}

/* The room of one product, kept for all that have its shape. `a` holds all panels of A, k block by k block, where they
 * are used again, else (`fresh`) those of mc rows of one k block, so that they stay in the cache. */
typedef struct {
    int64_t kc, nc, mc, a_panel, b_panel, a_block;
    int fresh;
    char *a, *b, *rows_room, *edge, *nothing;
    const void **rows;
} workspace;

static void close_workspace(workspace *w) {
    free(w->a), free(w->b), free(w->rows_room), free(w->edge), free(w->nothing), free((void *)w->rows);
}

static int open_workspace(workspace *w, const ring_tile *v, int64_t word, int64_t count, int64_t m, int64_t k,
                          int64_t n) {
    w->kc = LEAST(v->kc, UP(k, v->kstep)), w->nc = LEAST(NC / v->nr * v->nr, UP(n, v->nr)), w->mc = v->mc;
    w->a_panel = w->kc * v->a_bytes, w->b_panel = w->kc * v->b_bytes, w->a_block = UP(m, v->mr) / v->mr * w->a_panel;
    w->fresh = count == 1 && n <= w->nc;
    w->a = ring_room(w->fresh ? w->mc / v->mr * w->a_panel : UP(k, w->kc) / w->kc * w->a_block);
    w->b = ring_room(w->nc / v->nr * w->b_panel + RING_SLACK);
    w->rows_room = ring_room(w->kc * v->nr * word + RING_SLACK), w->edge = ring_room(v->mr * v->nr * word);
    w->nothing = ring_room(v->nr * word), w->rows = malloc((size_t)w->kc * sizeof *w->rows);
    if (!w->a || !w->b || !w->rows_room || !w->edge || !w->nothing || !w->rows) {
        close_workspace(w);
        return 2;
    }
    memset(w->nothing, 0, (size_t)(v->nr * word));
    return 0;
}

/* Packs rows first .. last - 1 of k block `pc`. */
static void pack_left(const workspace *w, const ring_tile *v, const char *a, int64_t word, int64_t first, int64_t last,
                      int64_t pc, int64_t k, char *to) {
    for (int64_t i = first; i < last; i += v->mr, to += w->a_panel)
        v->pack_a(a + (i * k + pc) * word, k, LEAST(v->mr, last - i), LEAST(w->kc, k - pc), to);
}

static void pack_right(workspace *w, const ring_tile *v, const ring_source *s, ring_strip *p, int64_t pc, int64_t depth,
                       int64_t jc, int64_t width) {
    for (int64_t j = 0; j < width; j += v->nr) {
        char *panel = w->b + j / v->nr * w->b_panel;
        int64_t count = LEAST(v->nr, width - j), whole = UP(depth, v->kstep);
        if (!v->pack_b) {
            ring_copy_rows(p, s, pc, depth, jc + j, count, v->nr, panel);
            continue;
        }
        ring_find_rows(p, s, pc, depth, jc + j, count, v->nr, w->rows_room, w->rows);
        for (int64_t t = depth; t < whole; t++) w->rows[t] = w->nothing;
        v->pack_b(w->rows, whole, panel);
    }
}

/* c += a b for one block of B of `width` columns, of k block `pc`. */
static void block_product(const workspace *w, const ring_tile *v, const char *a, int64_t pc, char *c, int64_t m, int64_t k,
                          int64_t n, int64_t width, int64_t word) {
    int64_t whole = UP(LEAST(w->kc, k - pc), v->kstep);
    for (int64_t ic = 0; ic < m; ic += w->mc) {
        const char *packed = w->a;
        if (w->fresh)
            pack_left(w, v, a, word, ic, LEAST(m, ic + w->mc), pc, k, w->a);
        else
            packed += pc / w->kc * w->a_block + ic / v->mr * w->a_panel;
        for (int64_t j = 0; j < width; j += v->nr)
            for (int64_t i = ic; i < m && i < ic + w->mc; i += v->mr) {
                const char *pa = packed + (i - ic) / v->mr * w->a_panel, *pb = w->b + j / v->nr * w->b_panel;
                int64_t deep = LEAST(v->mr, m - i), wide = LEAST(v->nr, width - j);
                char *to = c + (i * n + j) * word;
                if (deep == v->mr && wide == v->nr) {
                    v->tile(whole, pa, pb, to, n);
                } else {
                    memset(w->edge, 0, (size_t)(v->mr * v->nr * word));
                    v->tile(whole, pa, pb, w->edge, v->nr);
                    add_part(w->edge, v->nr, to, n, deep, wide, word);
                }
            }
    }
}

/* c[i] += a b[i] for `count` right-hand matrices `step` bytes apart. Returns 0, or 2 where memory ran out. */
static int products(const ring_tile *v, const char *a, ring_source s, ring_strip *p, int64_t step, char *c, int64_t c_step,
                    int64_t count, int64_t m, int64_t k, int64_t n) {
    int64_t word = s.word;
    int narrow = !s.image && n < NARROW_COLUMNS, failed = 0;
    if (m < THIN_ROWS || narrow) {
        for (int64_t i = 0; i < count && !failed; i++, s.data += step, c += c_step) {
            if (narrow)
                failed = narrow_product(v, a, &s, c, m, k, n);
            else
                thin_product(v, a, &s, p, c, m, k, n);
        }
        return failed;
    }
    workspace w;
    if (open_workspace(&w, v, word, count, m, k, n)) return 2;
    for (int64_t pc = 0; pc < k && !w.fresh; pc += w.kc)
        pack_left(&w, v, a, word, 0, m, pc, k, w.a + pc / w.kc * w.a_block);
    for (int64_t i = 0; i < count; i++, s.data += step, c += c_step)
        for (int64_t jc = 0; jc < n; jc += w.nc) {
            int64_t width = LEAST(w.nc, n - jc);
            ring_load_strip(p, &s, jc, width);
            for (int64_t pc = 0; pc < k; pc += w.kc) {
                int64_t depth = LEAST(w.kc, k - pc);
                pack_right(&w, v, &s, p, pc, depth, jc, width);
                block_product(&w, v, a, pc, c + jc * word, m, k, n, width, word);
            }
        }
    close_workspace(&w);
    return 0;
}

static const ring_tile *tile_of(int32_t variant, int32_t bits) {
#if defined(__x86_64__)
    if (variant >= RING_AVX2 && variant < RING_AMX) return &ring_tiles_x86[variant - RING_AVX2][bits == 64];
    if (variant == RING_AMX) return &ring_tiles_amx[bits == 64];
#endif
    return &tiles_c[variant == RING_C && bits == 64];
}

/* Whether variant 0 portable, 1 avx2, 2 avx512, 3 avx512 with ifma and vnni, 4 amx may run on this processor. */
DOOR int32_t edgeward_ring_supports(int32_t variant) {
    if (variant == RING_C) return 1;
#if defined(__x86_64__)
    if (variant == RING_AMX) return ring_supports_amx();
    return ring_supports_x86(variant);
#else
    return 0;
#endif
}

/* Whether whole-word products (vpmullq, vpmulld: one operation on AMD, two or three on Intel) come before `ifma`. */
DOOR int32_t edgeward_ring_prefers_whole_words(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_is("amd") != 0;
#else
    return 0;
#endif
}

/* c [batch][m][n] += a b with a [batch][m][k] and b [batch][k][n]. Returns 0, 1 where the variant may not run, or 2
 * where memory ran out. */
DOOR int32_t edgeward_ring_matmul(int32_t variant, int32_t bits, const char *a, const char *b, char *c, int64_t batch,
                                  int64_t m, int64_t k, int64_t n) {
    if (!edgeward_ring_supports(variant)) return 1;
    const ring_tile *v = tile_of(variant, bits);
    int64_t word = bits / 8;
    int failed = 0;
    ring_source s = {.word = word, .stride = n};
    ring_strip p;
    if (ring_open_strip(&p, &s, k, n, NC, THIN_COLUMNS)) return 2;
    if (v->begin) v->begin();
    for (int64_t i = 0; i < batch && !failed; i++) {
        s.data = b + i * k * n * word;
        failed = products(v, a + i * m * k * word, s, &p, 0, c + i * m * n * word, 0, 1, m, k, n);
    }
    if (v->end) v->end();
    ring_close_strip(&p);
    return failed;
}

/* out [batch][groups][o][oh][ow] from x [batch][groups][c][h][w] and weights [groups][o][c][kh][kw]; `shape` is
 * batch, groups, c, h, w, o, kh, kw, step_h, step_w, pad_h, pad_w, gap_h, gap_w, oh, ow. */
DOOR int32_t edgeward_ring_conv2d(int32_t variant, int32_t bits, const char *x, const char *weights, char *out,
                                  const int64_t *shape) {
    if (!edgeward_ring_supports(variant)) return 1;
    const ring_tile *v = tile_of(variant, bits);
    int64_t word = bits / 8, batch = shape[0], groups = shape[1], channels = shape[2], outputs = shape[5];
    int64_t pixels = shape[14] * shape[15], depth = channels * shape[6] * shape[7];
    int failed = 0;
    ring_source s = {.word = word,         .height = shape[3],  .width = shape[4],   .kernel_h = shape[6],
                .kernel_w = shape[7], .step_h = shape[8],  .step_w = shape[9],  .pad_h = shape[10],
                .pad_w = shape[11],   .gap_h = shape[12],  .gap_w = shape[13],  .out_w = shape[15],
                .image = 1};
    /* A kernel of one pixel and one step reads the image as it is stored. */
    if (depth == channels && s.step_h == 1 && s.step_w == 1 && !s.pad_h && !s.pad_w) s.image = 0, s.stride = pixels;
    ring_strip p;
    if (ring_open_strip(&p, &s, depth, pixels, NC, THIN_COLUMNS)) return 2;
    memset(out, 0, (size_t)(batch * groups * outputs * pixels * word));
    if (v->begin) v->begin();
    int64_t x_step = channels * shape[3] * shape[4] * word, out_step = outputs * pixels * word;
    for (int64_t g = 0; g < groups && !failed; g++) {
        s.data = x + g * x_step;
        failed = products(v, weights + g * outputs * depth * word, s, &p, groups * x_step, out + g * out_step,
                          groups * out_step, batch, outputs, depth, pixels);
    }
    if (v->end) v->end();
    ring_close_strip(&p);
    return failed;
}
