/* Operators that work element by element, and those that only move elements. */
#include "ew_requantise.h"

void ew_add(const int8_t *a, const int8_t *b, size_t n, int32_t zero_a, int32_t zero_b, int32_t multiplier_b,
            const ew_scale *scale, int8_t *restrict out) {
  ew_scale s = *scale;
  uint32_t shift = (uint32_t)s.shift & 31u;
  int32_t half = (int32_t)1 << ((shift - 1u) & 31u), m = s.multiplier;
  for (size_t i = 0; i < n; i++) {
    int32_t sum = s.zero_point + (((a[i] - zero_a) * m + (b[i] - zero_b) * multiplier_b + half) >> shift);
    sum = sum < s.low ? s.low : sum;
    out[i] = (int8_t)(sum > s.high ? s.high : sum);
  }
}

void ew_mul(const int8_t *a, const int8_t *b, size_t n, size_t period, int32_t zero_a, int32_t zero_b,
            const ew_scale *scale, int8_t *restrict out) {
  ew_scale s = *scale;
  for (size_t from = 0; from < n; from += period)
    for (size_t i = 0; i < period; i++)
      out[from + i] = ew_requantised((a[from + i] - zero_a) * (b[i] - zero_b), &s);
}

void ew_lookup(const int8_t *x, size_t n, const int8_t *table, int8_t *restrict out) {
  for (size_t i = 0; i < n; i++) out[i] = table[x[i] + 128];
}

void ew_concat(const int8_t *x, size_t pixels, size_t width, size_t apart, int8_t *out) {
  for (size_t p = 0; p < pixels; p++) ew_copy(out + p * apart, x + p * width, width);
}

void ew_shortcut(const ew_window *w, const int8_t *x, int32_t before, int8_t *out) {
  size_t all = (size_t)w->in_channels, after = (size_t)(w->out_channels - before) - all;
  for (int32_t row = 0; row < w->out_height; row++)
    for (int32_t column = 0; column < w->out_width; column++, out += w->out_channels) {
      size_t pixel = (size_t)(row * w->stride_height) * (size_t)w->in_width + (size_t)(column * w->stride_width);
      ew_fill(out, w->fill, (size_t)before);
      ew_copy(out + before, x + pixel * all, all);
      ew_fill(out + before + all, w->fill, after);
    }
}

void ew_argmax(const int8_t *x, size_t n, int8_t *out) {
  size_t best = 0;
  for (size_t i = 1; i < n; i++) best = x[i] > x[best] ? i : best;
  for (int i = 0; i < 4; i++) out[i] = (int8_t)(uint8_t)((uint32_t)best >> 8 * i);
}
