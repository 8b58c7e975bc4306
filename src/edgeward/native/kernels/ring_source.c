/* The rows of the right-hand matrix: of a stored one, or of the patches of an image, which are never stored as one. */

#include "ring.h"

#include <stdlib.h>

HIDDEN char *ring_room(int64_t bytes) { return aligned_alloc(64, (size_t)UP(bytes < 64 ? 64 : bytes, 64)); }

HIDDEN void ring_close_strip(ring_strip *p) { free(p->room), free(p->places), free(p->runs); }

/* Room for the lines that `block` columns of the `n` read, and for the runs of `panel` columns; both serve every image
 * of this shape. Returns 0, or 2 without memory. */
HIDDEN int ring_open_strip(ring_strip *p, const ring_source *s, int64_t k, int64_t n, int64_t block, int64_t panel) {
    memset(p, 0, sizeof *p);
    p->places = malloc((size_t)k * sizeof *p->places), p->runs = malloc((size_t)panel * sizeof *p->runs);
    p->panel = panel;
    int64_t bytes = 0, t = 0;
    if (s->image) {
        int64_t rows = LEAST(n / s->out_w, block / s->out_w + 2);
        int64_t pixels = (s->out_w - 1) * s->step_w + s->gap_w * (s->kernel_w - 1) + 1;
        p->channels = k / s->kernel_h / s->kernel_w;
        p->wide = UP(pixels, s->step_w) / s->step_w * s->word, p->line = p->wide * s->step_w;
        p->height = (rows - 1) * s->step_h + s->gap_h * (s->kernel_h - 1) + 1;
        bytes = p->channels * p->height * p->line + RING_SLACK;
        p->room = ring_room(bytes);
    }
    if (!p->places || !p->runs || (bytes && !p->room)) {
        ring_close_strip(p);
        return 2;
    }
    if (!s->image) {
        for (; t < k; t++) p->places[t] = t * s->stride * s->word;
        return 0;
    }
    for (int64_t c = 0; c < p->channels; c++)
        for (int64_t ky = 0; ky < s->kernel_h; ky++)
            for (int64_t kx = 0; kx < s->kernel_w; kx++)
                p->places[t++] = (c * p->height + ky * s->gap_h) * p->line + kx * s->gap_w % s->step_w * p->wide +
                                 kx * s->gap_w / s->step_w * s->word;
    return 0;
}

/* Whether any tap of the kernel reads places that leave `rest` modulo the step. */
static int read_by(int64_t rest, int64_t step, int64_t gap, int64_t kernel) {
    for (int64_t i = 0; i < kernel; i++)
        if (i * gap % step == rest % step) return 1;
    return 0;
}

/* One run of a line: `before` zeros, `inside` pixels `step` apart, zeros up to `count`. */
#define TAKE(NAME, WORD)                                                                                             \
    static void NAME(int64_t step, int64_t before, int64_t inside, int64_t count, const void *from, void *to) {      \
        const WORD *restrict x = from;                                                                               \
        WORD *restrict y = to;                                                                                       \
        int64_t i = 0;                                                                                               \
        for (; i < before; i++) y[i] = 0;                                                                            \
        if (step == 1)                                                                                               \
            memcpy(y + i, x, (size_t)inside * sizeof *y);                                                            \
        else if (step == 2)                                                                                          \
            for (int64_t e = 0; e < inside; e++) y[i + e] = x[2 * e];                                                \
        else                                                                                                         \
            for (int64_t e = 0; e < inside; e++) y[i + e] = x[step * e];                                             \
        for (i += inside; i < count; i++) y[i] = 0;                                                                  \
    }
TAKE(take_4, uint32_t)
TAKE(take_8, uint64_t)

/* Takes over the pixels at `rest` modulo the step, of the first `height` lines of the strip. */
static void load_rest(const ring_strip *p, const ring_source *s, int64_t rest, int64_t height) {
    int64_t word = s->word, entries = p->wide / word;
    int64_t before = s->pad_w > rest ? LEAST((s->pad_w - rest + s->step_w - 1) / s->step_w, entries) : 0;
    int64_t x = before * s->step_w + rest - s->pad_w;
    int64_t inside = x < s->width ? LEAST(entries - before, (s->width - x + s->step_w - 1) / s->step_w) : 0;
    int64_t image = s->height * s->width * word;
    for (int64_t i = 0; i < height; i++) {
        if (!read_by(i, s->step_h, s->gap_h, s->kernel_h)) continue;
        int64_t y = p->first * s->step_h + i - s->pad_h;
        char *to = p->room + i * p->line + rest * p->wide;
        int64_t from = (y * s->width + LEAST(x, s->width - 1)) * word;
        for (int64_t c = 0; c < p->channels; c++, to += p->height * p->line, from += image) {
            if (y < 0 || y >= s->height)
                memset(to, 0, (size_t)p->wide);
            else if (word == 8)
                take_8(s->step_w, before, inside, entries, s->data + from, to);
            else
                take_4(s->step_w, before, inside, entries, s->data + from, to);
        }
    }
}

static void cut_runs(ring_strip *p, const ring_source *s, int64_t j, int64_t count) {
    int64_t to = 0;
    p->count = 0;
    if (!s->image) p->runs[p->count++] = (ring_run){0, j * s->word, count * s->word}, count = 0;
    for (int64_t oy = s->image ? j / s->out_w : 0, ox = s->image ? j % s->out_w : 0; count > 0; oy++, ox = 0) {
        int64_t run = LEAST(count, s->out_w - ox), bytes = run * s->word;
        int64_t from = (oy - p->first) * s->step_h * p->line + ox * s->word;
        ring_run *before = p->runs + p->count - 1;
        if (p->count && before->from + before->bytes == from)
            before->bytes += bytes;
        else
            p->runs[p->count++] = (ring_run){to, from, bytes};
        to += bytes, count -= run;
    }
}

/* Takes the lines over that columns j .. j + columns - 1 read, and cuts them into runs. */
HIDDEN void ring_load_strip(ring_strip *p, const ring_source *s, int64_t j, int64_t columns) {
    p->lines = s->image ? p->room : s->data;
    if (s->image) {
        p->first = j / s->out_w;
        int64_t last = (j + columns - 1) / s->out_w;
        int64_t height = (last - p->first) * s->step_h + s->gap_h * (s->kernel_h - 1) + 1;
        for (int64_t rest = 0; rest < s->step_w; rest++)
            if (read_by(rest, s->step_w, s->gap_w, s->kernel_w)) load_rest(p, s, rest, height);
    }
    if (columns <= p->panel) cut_runs(p, s, j, columns);
}

static void copy_runs(const ring_strip *p, int64_t first, int64_t k, int64_t bytes, char *to) {
    for (int64_t t = 0; t < k; t++, to += bytes) {
        const char *row = p->lines + p->places[first + t];
        /* A piece that is too long is overwritten by the next run or row. */
        for (int64_t r = 0; r < p->count; r++)
            for (int64_t i = 0; i < p->runs[r].bytes; i += RING_PIECE)
                memcpy(to + p->runs[r].to + i, row + p->runs[r].from + i, RING_PIECE);
    }
}

/* A stored matrix ends where it ends: nothing behind it may be read. */
static void copy_stored(const ring_source *s, int64_t first, int64_t k, int64_t j, int64_t count, int64_t columns,
                        char *to) {
    for (int64_t t = 0; t < k; t++)
        memcpy(to + t * columns * s->word, s->data + ((first + t) * s->stride + j) * s->word, (size_t)(count * s->word));
}

HIDDEN void ring_copy_rows(ring_strip *p, const ring_source *s, int64_t first, int64_t k, int64_t j, int64_t count,
                           int64_t columns, char *to) {
    if (!s->image) {
        copy_stored(s, first, k, j, count, columns, to);
        return;
    }
    cut_runs(p, s, j, count);
    copy_runs(p, first, k, columns * s->word, to);
}

HIDDEN void ring_find_rows(ring_strip *p, const ring_source *s, int64_t first, int64_t k, int64_t j, int64_t count,
                           int64_t columns, char *room, const void **rows) {
    cut_runs(p, s, j, count);
    if (p->count == 1 && (s->image || count == columns)) {
        for (int64_t t = 0; t < k; t++) rows[t] = p->lines + p->places[first + t] + p->runs[0].from;
        return;
    }
    ring_copy_rows(p, s, first, k, j, count, columns, room);
    for (int64_t t = 0; t < k; t++) rows[t] = room + t * columns * s->word;
}
