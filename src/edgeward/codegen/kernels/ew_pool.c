/* Pooling, a block of channels at a time; positions outside the image take no part (for sums they count as zero). */
#include "ew_requantise.h"

#define EW_BLOCK 16

EW_INLINE void ew_max_block(const ew_window *w, const int8_t *x, int32_t top, int32_t left, size_t n, int8_t *out) {
  size_t all = (size_t)w->in_channels;
  int8_t best[EW_BLOCK];
  for (size_t c = 0; c < n; c++) best[c] = -128;
  for (int32_t i = 0; i < w->kernel_height; i++)
    for (int32_t j = 0; j < w->kernel_width; j++) {
      int32_t y = top + i, column = left + j;
      if (y < 0 || y >= w->in_height || column < 0 || column >= w->in_width) continue;
      const int8_t *pixel = x + ((size_t)y * (size_t)w->in_width + (size_t)column) * all;
      for (size_t c = 0; c < n; c++) best[c] = pixel[c] > best[c] ? pixel[c] : best[c];
    }
  for (size_t c = 0; c < n; c++) out[c] = best[c];
}

EW_INLINE void ew_sum_block(const ew_window *w, const int8_t *x, int32_t top, int32_t left, size_t n,
                            const ew_scale *scale, int8_t *out) {
  size_t all = (size_t)w->in_channels;
  int32_t sums[EW_BLOCK], counted = 0;
  for (size_t c = 0; c < n; c++) sums[c] = 0;
  for (int32_t i = 0; i < w->kernel_height; i++)
    for (int32_t j = 0; j < w->kernel_width; j++) {
      int32_t y = top + i, column = left + j;
      if (y < 0 || y >= w->in_height || column < 0 || column >= w->in_width) continue;
      const int8_t *pixel = x + ((size_t)y * (size_t)w->in_width + (size_t)column) * all;
      counted += w->fill;
      for (size_t c = 0; c < n; c++) sums[c] += pixel[c];
    }
  for (size_t c = 0; c < n; c++) out[c] = ew_requantised(sums[c] - counted, scale);
}

void ew_max_pool(const ew_window *w, const int8_t *x, int8_t *out) {
  size_t all = (size_t)w->in_channels;
  for (int32_t row = 0; row < w->out_height; row++)
    for (int32_t column = 0; column < w->out_width; column++, out += all) {
      int32_t top = row * w->stride_height - w->pad_top, left = column * w->stride_width - w->pad_left;
      size_t c = 0;
      for (; c + EW_BLOCK <= all; c += EW_BLOCK) ew_max_block(w, x + c, top, left, EW_BLOCK, out + c);
      if (c < all) ew_max_block(w, x + c, top, left, all - c, out + c);
    }
}

/* window->fill is the input's zero point. */
void ew_avg_pool(const ew_window *w, const int8_t *x, const ew_scale *scale, int8_t *out) {
  size_t all = (size_t)w->in_channels;
  for (int32_t row = 0; row < w->out_height; row++)
    for (int32_t column = 0; column < w->out_width; column++, out += all) {
      int32_t top = row * w->stride_height - w->pad_top, left = column * w->stride_width - w->pad_left;
      size_t c = 0;
      for (; c + EW_BLOCK <= all; c += EW_BLOCK) ew_sum_block(w, x + c, top, left, EW_BLOCK, scale, out + c);
      if (c < all) ew_sum_block(w, x + c, top, left, all - c, scale, out + c);
    }
}

EW_INLINE void ew_mean_block(const int8_t *x, size_t pixels, size_t channels, int32_t zero_point, size_t n,
                             const ew_scale *scale, int8_t *out) {
  int32_t sums[EW_BLOCK];
  for (size_t c = 0; c < n; c++) sums[c] = 0;
  for (size_t p = 0; p < pixels; p++, x += channels)
    for (size_t c = 0; c < n; c++) sums[c] += x[c];
  for (size_t c = 0; c < n; c++) out[c] = ew_requantised(sums[c] - (int32_t)pixels * zero_point, scale);
}

void ew_global_avg_pool(const int8_t *x, size_t pixels, size_t channels, int32_t zero_point, const ew_scale *scale,
                        int8_t *out) {
  size_t c = 0;
  for (; c + EW_BLOCK <= channels; c += EW_BLOCK)
    ew_mean_block(x + c, pixels, channels, zero_point, EW_BLOCK, scale, out + c);
  if (c < channels) ew_mean_block(x + c, pixels, channels, zero_point, channels - c, scale, out + c);
}
