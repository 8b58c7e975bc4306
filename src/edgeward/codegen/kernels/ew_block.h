/* Sixteen channels side by side (eight when `half`): sums[c] += x[c] * w[c]. Every form gives the same integers. */
#ifndef EW_BLOCK_H
#define EW_BLOCK_H

#include "ew_lanes.h"

#define EW_BLOCK 16

#if defined(__ARM_NEON) && EW_STEP > 1
typedef struct {
  int32x4_t sums[4];
} ew_block;
EW_INLINE void ew_block_clear(ew_block *b) {
  for (int i = 0; i < 4; i++) b->sums[i] = vdupq_n_s32(0);
}
EW_INLINE void ew_block_step(ew_block *b, const int8_t *x, const int8_t *w, int half) {
  int8x16_t wide = half ? ew_load_half(x) : ew_load(x), taps = half ? ew_load_half(w) : ew_load(w);
  int16x8_t low = vmull_s8(vget_low_s8(wide), vget_low_s8(taps));
  b->sums[0] = vaddw_s16(b->sums[0], vget_low_s16(low));
  b->sums[1] = vaddw_s16(b->sums[1], vget_high_s16(low));
  if (half) return;
  int16x8_t high = vmull_s8(vget_high_s8(wide), vget_high_s8(taps));
  b->sums[2] = vaddw_s16(b->sums[2], vget_low_s16(high));
  b->sums[3] = vaddw_s16(b->sums[3], vget_high_s16(high));
}
EW_INLINE void ew_block_store(const ew_block *b, const ew_channels *channels, size_t first, int half, int8_t *out) {
  for (size_t i = 0; i < (half ? 2u : 4u); i++) {
    ew_quad quad = ew_quad_of(channels, first + 4 * i);
    ew_quad_store(&quad, b->sums[i], out + 4 * i);
  }
}

#elif defined(__wasm_simd128__) && EW_STEP > 1
typedef struct {
  v128_t sums[4];
} ew_block;
EW_INLINE void ew_block_clear(ew_block *b) {
  for (int i = 0; i < 4; i++) b->sums[i] = wasm_i32x4_const(0, 0, 0, 0);
}
EW_INLINE void ew_block_step(ew_block *b, const int8_t *x, const int8_t *w, int half) {
  v128_t wide = half ? ew_load_half(x) : ew_load(x), taps = half ? ew_load_half(w) : ew_load(w);
  v128_t low = wasm_i16x8_extmul_low_i8x16(wide, taps);
  b->sums[0] = wasm_i32x4_add(b->sums[0], wasm_i32x4_extend_low_i16x8(low));
  b->sums[1] = wasm_i32x4_add(b->sums[1], wasm_i32x4_extend_high_i16x8(low));
  if (half) return;
  v128_t high = wasm_i16x8_extmul_high_i8x16(wide, taps);
  b->sums[2] = wasm_i32x4_add(b->sums[2], wasm_i32x4_extend_low_i16x8(high));
  b->sums[3] = wasm_i32x4_add(b->sums[3], wasm_i32x4_extend_high_i16x8(high));
}
EW_INLINE void ew_block_store(const ew_block *b, const ew_channels *channels, size_t first, int half, int8_t *out) {
  int32_t sums[EW_BLOCK];
  for (int i = 0; i < 4; i++) wasm_v128_store(sums + 4 * i, b->sums[i]);
  for (size_t c = 0; c < (half ? 8u : 16u); c++) out[c] = ew_channel(sums[c], channels, first + c);
}

#elif defined(__AVX2__) && EW_STEP > 1
typedef struct {
  __m256i sums[2];
} ew_block;
EW_INLINE void ew_block_clear(ew_block *b) { b->sums[0] = b->sums[1] = _mm256_setzero_si256(); }
EW_INLINE void ew_block_step(ew_block *b, const int8_t *x, const int8_t *w, int half) {
  __m128i wide = half ? _mm_loadl_epi64((const void *)x) : _mm_loadu_si128((const void *)x);
  __m128i taps = half ? _mm_loadl_epi64((const void *)w) : _mm_loadu_si128((const void *)w);
  __m256i products = _mm256_mullo_epi16(_mm256_cvtepi8_epi16(wide), _mm256_cvtepi8_epi16(taps));
  b->sums[0] = _mm256_add_epi32(b->sums[0], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(products)));
  if (half) return;
  b->sums[1] = _mm256_add_epi32(b->sums[1], _mm256_cvtepi16_epi32(_mm256_extracti128_si256(products, 1)));
}
EW_INLINE void ew_block_store(const ew_block *b, const ew_channels *channels, size_t first, int half, int8_t *out) {
#if defined(EW_QUAD)
  for (size_t i = 0; i < (half ? 2u : 4u); i++) {
    ew_quad quad = ew_quad_of(channels, first + 4 * i);
    __m256i own = b->sums[i / 2];
    ew_quad_store(&quad, i % 2 ? _mm256_extracti128_si256(own, 1) : _mm256_castsi256_si128(own), out + 4 * i);
  }
#else
  int32_t sums[EW_BLOCK];
  for (int i = 0; i < 2; i++) _mm256_storeu_si256((void *)(sums + 8 * i), b->sums[i]);
  for (size_t c = 0; c < (half ? 8u : 16u); c++) out[c] = ew_channel(sums[c], channels, first + c);
#endif
}

#else
typedef struct {
  int32_t sums[EW_BLOCK];
} ew_block;
EW_INLINE void ew_block_clear(ew_block *b) {
  for (int c = 0; c < EW_BLOCK; c++) b->sums[c] = 0;
}
EW_INLINE void ew_block_step(ew_block *b, const int8_t *x, const int8_t *w, int half) {
  for (int c = 0; c < (half ? 8 : 16); c++) b->sums[c] += (int32_t)x[c] * w[c];
}
EW_INLINE void ew_block_store(const ew_block *b, const ew_channels *channels, size_t first, int half, int8_t *out) {
  for (size_t c = 0; c < (half ? 8u : 16u); c++) out[c] = ew_channel(b->sums[c], channels, first + c);
}
#endif

#endif
