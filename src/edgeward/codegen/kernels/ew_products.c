/* The product of a few rows with a weight matrix, both contiguous along k: every load serves four products. */
#include "ew_lanes.h"

#define EW_TILE 4

typedef ew_lanes ew_tile[EW_TILE + EW_OFFSET][EW_TILE];

/* The end of a row, shorter than a step, is read as a part where the processor can; else as the last whole (or half)
 * step of the row, with the lanes that were counted already masked away. */
#if defined(EW_PARTS) || EW_STEP == 1
#define EW_SHORTEST 1
#else
#define EW_SHORTEST (EW_STEP / 2)
/* ew_keep + EW_STEP - step + n keeps the last n lanes of a step. */
static const int8_t ew_keep[2 * EW_STEP] = {
    [EW_STEP] = -1,      [EW_STEP + 1] = -1,  [EW_STEP + 2] = -1,  [EW_STEP + 3] = -1,
    [EW_STEP + 4] = -1,  [EW_STEP + 5] = -1,  [EW_STEP + 6] = -1,  [EW_STEP + 7] = -1,
    [EW_STEP + 8] = -1,  [EW_STEP + 9] = -1,  [EW_STEP + 10] = -1, [EW_STEP + 11] = -1,
    [EW_STEP + 12] = -1, [EW_STEP + 13] = -1, [EW_STEP + 14] = -1, [EW_STEP + 15] = -1,
};
#endif

#if EW_STEP == 1
EW_INLINE ew_bytes ew_fetch(const int8_t *p, int half, size_t part) {
  (void)half, (void)part;
  return ew_load(p);
}
#elif defined(EW_PARTS)
EW_INLINE ew_bytes ew_fetch(const int8_t *p, int half, size_t part) {
  (void)half;
  return part ? ew_load_part(p, part) : ew_load(p);
}
#else
EW_INLINE ew_bytes ew_fetch(const int8_t *p, int half, size_t part) {
  (void)part;
  return half ? ew_load_half(p) : ew_load(p);
}
#endif

/* sums[r][c] += the products of row r and column c from position i on; `part` elements, or all of a step where 0. */
EW_INLINE void ew_tile_step(ew_tile sums, const int8_t *const *a, int rows, const int8_t *w, size_t k, int columns,
                            size_t i, int half, size_t part) {
  ew_bytes x[EW_TILE + EW_OFFSET];
  for (int r = 0; r < rows; r++) {
    x[r] = ew_row(ew_fetch(a[r] + i, half, part));
#if EW_SHORTEST > 1
    if (part) x[r] = ew_kept(x[r], ew_fetch(ew_keep + EW_STEP - (half ? EW_STEP / 2 : EW_STEP) + part, half, 0));
#endif
  }
#if EW_OFFSET
  x[rows] = ew_offset();
#endif
  for (int c = 0; c < columns; c++) {
    ew_bytes y = ew_fetch(w + (size_t)c * k + i, half, part);
    for (int r = 0; r < rows + EW_OFFSET; r++) sums[r][c] = ew_step(sums[r][c], x[r], y);
  }
}

EW_INLINE void ew_tile_sums(ew_tile sums, const int8_t *const *a, int rows, const int8_t *w, size_t k, int columns,
                            int half) {
  const size_t step = half ? EW_STEP / 2 : EW_STEP;
  for (int r = 0; r < rows + EW_OFFSET; r++)
    for (int c = 0; c < columns; c++) sums[r][c] = ew_zero();
  size_t i = 0;
  for (; i + step <= k; i += step) ew_tile_step(sums, a, rows, w, k, columns, i, half, 0);
#if EW_SHORTEST > 1
  if (i < k) ew_tile_step(sums, a, rows, w, k, columns, k - step, half, k - i);
#elif EW_STEP > 1
  if (i < k) ew_tile_step(sums, a, rows, w, k, columns, i, half, k - i);
#endif
}

EW_INLINE void ew_tile_store(ew_tile sums, int rows, int columns, const ew_channels *channels, size_t first,
                             int8_t *out, size_t apart) {
#if defined(EW_QUAD)
  if (columns == EW_TILE) {
    ew_quad quad = ew_quad_of(channels, first);
#if EW_OFFSET
    ew_sums4 offset = ew_total4(sums[rows]);
#endif
    for (int r = 0; r < rows; r++) {
      ew_sums4 totals = ew_total4(sums[r]);
#if EW_OFFSET
      totals = ew_minus4(totals, offset);
#endif
      ew_quad_store(&quad, totals, out + (size_t)r * apart + first);
    }
    return;
  }
#endif
  for (int c = 0; c < columns; c++) {
#if EW_OFFSET
    uint32_t offset = (uint32_t)ew_total(sums[rows][c]);
#else
    uint32_t offset = 0;
#endif
    for (int r = 0; r < rows; r++) {
      int32_t sum = (int32_t)((uint32_t)ew_total(sums[r][c]) - offset);
      out[(size_t)r * apart + first + (size_t)c] = ew_channel(sum, channels, first + (size_t)c);
    }
  }
}

EW_INLINE void ew_tiles(const int8_t *const *a, int rows, const int8_t *w, size_t k, int32_t outputs,
                        const ew_channels *channels, int8_t *out, size_t apart, int half) {
  ew_tile sums;
  int32_t o = 0;
  for (; o + EW_TILE <= outputs; o += EW_TILE) {
    ew_tile_sums(sums, a, rows, w + (size_t)o * k, k, EW_TILE, half);
    ew_tile_store(sums, rows, EW_TILE, channels, (size_t)o, out, apart);
  }
  for (; o < outputs; o++) {
    ew_tile_sums(sums, a, rows, w + (size_t)o * k, k, 1, half);
    ew_tile_store(sums, rows, 1, channels, (size_t)o, out, apart);
  }
}

#if EW_SHORTEST > 1
/* Rows shorter than half a step. */
static void ew_short(const int8_t *a, const int8_t *w, size_t k, int32_t outputs, const ew_channels *channels,
                     int8_t *out) {
  for (int32_t o = 0; o < outputs; o++, w += k) {
    int32_t sum = 0;
    for (size_t i = 0; i < k; i++) sum += (int32_t)a[i] * w[i];
    out[o] = ew_channel(sum, channels, (size_t)o);
  }
}
#endif

void ew_products(const int8_t *const *rows, int32_t count, const int8_t *weight, size_t k, int32_t outputs,
                 const ew_channels *channels, int8_t *out, size_t outputs_apart) {
#if EW_SHORTEST > 1
  if (k < EW_STEP) {
    if (count == EW_TILE && k >= EW_SHORTEST) {
      ew_tiles(rows, EW_TILE, weight, k, outputs, channels, out, outputs_apart, 1);
      return;
    }
    for (int32_t r = 0; r < count; r++)
      ew_short(rows[r], weight, k, outputs, channels, out + (size_t)r * outputs_apart);
    return;
  }
#endif
  if (count == EW_TILE) {
    ew_tiles(rows, EW_TILE, weight, k, outputs, channels, out, outputs_apart, 0);
    return;
  }
  for (int32_t r = 0; r < count; r++)
    ew_tiles(rows + r, 1, weight, k, outputs, channels, out + (size_t)r * outputs_apart, outputs_apart, 0);
}
