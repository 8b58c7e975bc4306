/* int8 operators on NHWC records: no memory is allocated, nothing but these files is called, and for every content of
 * the weights the addresses read and written follow from the shapes alone (a table look-up stays in its 256 bytes).
 * No pointer needs an alignment. Weights are little endian in memory. Shapes come from the program text. */
#ifndef EW_KERNELS_H
#define EW_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* out = clamp(zero_point + ((sum * multiplier + 2^(shift - 1)) >> shift), low, high) in 64 bits, floor shift. */
typedef struct {
  int32_t multiplier, shift, zero_point, low, high;
} ew_scale;

/* The same with a multiplier, a shift and a bias per output channel, read from the weights. */
typedef struct {
  const uint8_t *bias, *multiplier, *shift;
  int32_t zero_point, low, high;
} ew_channels;

/* A window that moves over a padded image; rows, then columns. `fill` is what padding reads as. */
typedef struct {
  int32_t in_height, in_width, in_channels;
  int32_t out_height, out_width, out_channels;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width;
  int32_t pad_top, pad_left;
  int32_t dilation_height, dilation_width;
  int32_t groups;
  int32_t fill;
} ew_window;

/* Copy n bytes; the areas do not overlap. */
void ew_copy(int8_t *restrict to, const int8_t *restrict from, size_t n);
void ew_fill(int8_t *to, int32_t value, size_t n);

/* `outputs` dot products of length k for each of `rows` <= 4 rows; row r goes to out + r * outputs_apart. */
void ew_products(const int8_t *const *rows, int32_t count, const int8_t *weight, size_t k, int32_t outputs,
                 const ew_channels *channels, int8_t *out, size_t outputs_apart);

void ew_conv2d(const ew_window *window, const int8_t *x, const int8_t *weight, const ew_channels *channels,
               int8_t *out, int8_t *scratch);
void ew_depthwise(const ew_window *window, const int8_t *x, const int8_t *weight, const ew_channels *channels,
                  int8_t *out);
void ew_linear(const int8_t *x, size_t features, const int8_t *weight, int32_t outputs, const ew_channels *channels,
               int8_t *out);

void ew_max_pool(const ew_window *window, const int8_t *x, int8_t *out);
void ew_avg_pool(const ew_window *window, const int8_t *x, const ew_scale *scale, int8_t *out);
void ew_global_avg_pool(const int8_t *x, size_t pixels, size_t channels, int32_t zero_point, const ew_scale *scale,
                        int8_t *out);

/* scale->multiplier counts for a; |multiplier| < 2^21 keeps the sum inside 32 bits. */
void ew_add(const int8_t *a, const int8_t *b, size_t n, int32_t zero_a, int32_t zero_b, int32_t multiplier_b,
            const ew_scale *scale, int8_t *out);
/* b holds `period` elements and starts again: n for equal shapes, the channels for one factor per channel. */
void ew_mul(const int8_t *a, const int8_t *b, size_t n, size_t period, int32_t zero_a, int32_t zero_b,
            const ew_scale *scale, int8_t *out);
void ew_lookup(const int8_t *x, size_t n, const int8_t *table, int8_t *out);
/* Write `width` channels of each pixel at `out`, `apart` bytes from pixel to pixel. */
void ew_concat(const int8_t *x, size_t pixels, size_t width, size_t apart, int8_t *out);
void ew_shortcut(const ew_window *window, const int8_t *x, int32_t before, int8_t *out);
void ew_argmax(const int8_t *x, size_t n, int8_t *out);

#endif
