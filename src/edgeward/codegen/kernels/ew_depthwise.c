/* Kernels of one filter per channel: blocks of channels, the last one overlapping the one before. */
#include "ew_block.h"

/* One output pixel, eight or sixteen channels; `inside`: no tap of the window lies in the padding. */
EW_INLINE void ew_depthwise_block(const ew_window *w, const int8_t *x, const int8_t *taps, const int8_t *fill,
                                  const ew_channels *channels, int32_t top, int32_t left, size_t first, int half,
                                  int inside, int8_t *out) {
  size_t all = (size_t)w->in_channels, across = all * (size_t)w->dilation_width;
  ew_block block;
  ew_block_clear(&block);
  taps += first;
  for (int32_t i = 0; i < w->kernel_height; i++) {
    int32_t y = top + i * w->dilation_height;
    if (inside) {
      const int8_t *pixel = x + ((size_t)y * (size_t)w->in_width + (size_t)left) * all + first;
      for (int32_t j = 0; j < w->kernel_width; j++, taps += all)
        ew_block_step(&block, pixel + (size_t)j * across, taps, half);
      continue;
    }
    for (int32_t j = 0; j < w->kernel_width; j++, taps += all) {
      int32_t column = left + j * w->dilation_width;
      int there = y >= 0 && y < w->in_height && column >= 0 && column < w->in_width;
      size_t pixel = there ? (size_t)y * (size_t)w->in_width + (size_t)column : 0;
      ew_block_step(&block, there ? x + pixel * all + first : fill, taps, half);
    }
  }
  ew_block_store(&block, channels, first, half, out + first);
}

/* Fewer than eight channels. */
static void ew_depthwise_few(const ew_window *w, const int8_t *x, const int8_t *taps, const ew_channels *channels,
                             int32_t top, int32_t left, int8_t *out) {
  size_t all = (size_t)w->in_channels;
  for (size_t c = 0; c < all; c++) {
    int32_t sum = 0;
    const int8_t *tap = taps + c;
    for (int32_t i = 0; i < w->kernel_height; i++)
      for (int32_t j = 0; j < w->kernel_width; j++, tap += all) {
        int32_t y = top + i * w->dilation_height, column = left + j * w->dilation_width;
        int there = y >= 0 && y < w->in_height && column >= 0 && column < w->in_width;
        size_t pixel = there ? (size_t)y * (size_t)w->in_width + (size_t)column : 0;
        sum += (there ? x[pixel * all + c] : w->fill) * *tap;
      }
    out[c] = ew_channel(sum, channels, c);
  }
}

EW_INLINE void ew_depthwise_pixel(const ew_window *w, const int8_t *x, const int8_t *taps, const int8_t *fill,
                                  const ew_channels *channels, int32_t top, int32_t left, int inside, int8_t *out) {
  size_t all = (size_t)w->in_channels, c = 0;
  for (; c + EW_BLOCK <= all; c += EW_BLOCK)
    ew_depthwise_block(w, x, taps, fill, channels, top, left, c, 0, inside, out);
  if (c == all) return;
  if (all >= EW_BLOCK) {
    ew_depthwise_block(w, x, taps, fill, channels, top, left, all - EW_BLOCK, 0, inside, out);
  } else {
    ew_depthwise_block(w, x, taps, fill, channels, top, left, 0, 1, inside, out);
    ew_depthwise_block(w, x, taps, fill, channels, top, left, all - EW_BLOCK / 2, 1, inside, out);
  }
}

void ew_depthwise(const ew_window *w, const int8_t *x, const int8_t *weight, const ew_channels *channels,
                  int8_t *out) {
  int8_t fill[EW_BLOCK];
  ew_fill(fill, w->fill, EW_BLOCK);
  size_t all = (size_t)w->in_channels;
  int32_t height = (w->kernel_height - 1) * w->dilation_height, width = (w->kernel_width - 1) * w->dilation_width;
  for (int32_t row = 0; row < w->out_height; row++)
    for (int32_t column = 0; column < w->out_width; column++, out += all) {
      int32_t top = row * w->stride_height - w->pad_top, left = column * w->stride_width - w->pad_left;
      if (all < EW_BLOCK / 2)
        ew_depthwise_few(w, x, weight, channels, top, left, out);
      else if (top >= 0 && left >= 0 && top + height < w->in_height && left + width < w->in_width)
        ew_depthwise_pixel(w, x, weight, fill, channels, top, left, 1, out);
      else
        ew_depthwise_pixel(w, x, weight, fill, channels, top, left, 0, out);
    }
}
