/* Convolutions: four output pixels at a time are laid out as rows (im2col) and multiplied; a 1x1 kernel without padding
 * reads its rows in place. */
#include "ew_kernels.h"

#define EW_PIXELS 4

/* Gather the window of one output pixel, channels first..first+width of every tap, into `row`. */
static void ew_gather(const ew_window *w, const int8_t *x, int32_t top, int32_t left, size_t first, size_t width,
                      int8_t *row) {
  size_t channels = (size_t)w->in_channels;
  for (int32_t i = 0; i < w->kernel_height; i++) {
    int32_t y = top + i * w->dilation_height;
    const int8_t *line = x + (size_t)(y < 0 ? 0 : y) * (size_t)w->in_width * channels + first;
    int inside = y >= 0 && y < w->in_height;
    int whole = inside && w->dilation_width == 1 && width == channels && left >= 0 &&
                left + w->kernel_width <= w->in_width;
    if (whole) {
      ew_copy(row, line + (size_t)left * channels, (size_t)w->kernel_width * channels);
      row += (size_t)w->kernel_width * channels;
      continue;
    }
    for (int32_t j = 0; j < w->kernel_width; j++, row += width) {
      int32_t column = left + j * w->dilation_width;
      if (inside && column >= 0 && column < w->in_width)
        ew_copy(row, line + (size_t)column * channels, width);
      else
        ew_fill(row, w->fill, width);
    }
  }
}

void ew_conv2d(const ew_window *w, const int8_t *x, const int8_t *weight, const ew_channels *channels, int8_t *out,
               int8_t *scratch) {
  size_t width = (size_t)(w->in_channels / w->groups), taps = (size_t)w->kernel_height * (size_t)w->kernel_width;
  size_t k = taps * width, apart = (size_t)w->out_channels;
  int32_t outputs = w->out_channels / w->groups, pixels = w->out_height * w->out_width;
  for (int32_t g = 0; g < w->groups; g++) {
    size_t from = (size_t)(g * outputs), first = (size_t)g * width;
    ew_channels own = *channels;
    own.bias += 4 * from;
    own.multiplier += 4 * from;
    own.shift += from;
    int32_t row = 0, column = 0;
    for (int32_t p = 0; p < pixels; p += EW_PIXELS) {
      const int8_t *rows[EW_PIXELS];
      int32_t count = pixels - p < EW_PIXELS ? pixels - p : EW_PIXELS;
      for (int32_t r = 0; r < count; r++) {
        int32_t top = row * w->stride_height - w->pad_top, left = column * w->stride_width - w->pad_left;
        if (scratch) {
          int8_t *gathered = scratch + (size_t)r * k;
          ew_gather(w, x, top, left, first, width, gathered);
          rows[r] = gathered;
        } else {
          rows[r] = x + ((size_t)top * (size_t)w->in_width + (size_t)left) * (size_t)w->in_channels + first;
        }
        if (++column == w->out_width) column = 0, row++;
      }
      ew_products(rows, count, weight + from * k, k, outputs, &own, out + (size_t)p * apart + from, apart);
    }
  }
}

void ew_linear(const int8_t *x, size_t features, const int8_t *weight, int32_t outputs, const ew_channels *channels,
               int8_t *out) {
  const int8_t *rows[1] = {x};
  ew_products(rows, 1, weight, features, outputs, channels, out, (size_t)outputs);
}
