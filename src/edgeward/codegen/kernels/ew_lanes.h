/* Sums of int8 products, EW_STEP pairs at a time, per instruction set. All forms give the same integers: with weights
 * in -127..127 two products fit 16 bits, and 32-bit sums are exact. -DEW_PLAIN keeps the plain form. */
#ifndef EW_LANES_H
#define EW_LANES_H

#include "ew_requantise.h"

#if defined(EW_PLAIN)
#define EW_STEP 1

#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define EW_STEP 16
typedef int8x16_t ew_bytes;
typedef int32x4_t ew_lanes;
EW_INLINE ew_bytes ew_load(const int8_t *p) { return vld1q_s8(p); }
EW_INLINE ew_bytes ew_load_half(const int8_t *p) { return vcombine_s8(vld1_s8(p), vdup_n_s8(0)); }
EW_INLINE ew_bytes ew_kept(ew_bytes x, ew_bytes mask) { return vandq_s8(x, mask); }
EW_INLINE ew_lanes ew_zero(void) { return vdupq_n_s32(0); }
EW_INLINE ew_lanes ew_step(ew_lanes sum, ew_bytes a, ew_bytes w) {
  int16x8_t pairs = vmull_s8(vget_low_s8(a), vget_low_s8(w));
  return vpadalq_s16(sum, vmlal_s8(pairs, vget_high_s8(a), vget_high_s8(w)));
}
EW_INLINE int32x4_t ew_pairwise(int32x4_t a, int32x4_t b) {
#if defined(__aarch64__)
  return vpaddq_s32(a, b);
#else
  return vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
#endif
}
EW_INLINE int32_t ew_total(ew_lanes s) { return vgetq_lane_s32(ew_pairwise(ew_pairwise(s, s), s), 0); }

/* Requantisation of four neighbouring channels; saturation replaces only what the clamp replaces anyway. */
#define EW_QUAD
typedef int32x4_t ew_sums4;
EW_INLINE ew_sums4 ew_total4(const ew_lanes *s) { return ew_pairwise(ew_pairwise(s[0], s[1]), ew_pairwise(s[2], s[3])); }
typedef struct {
  int32x4_t bias, multiplier, zero_point, low, high;
  int64x2_t back[2];
} ew_quad;
EW_INLINE ew_quad ew_quad_of(const ew_channels *c, size_t o) {
  uint32_t bytes = (uint32_t)ew_word(c->shift + o);
  uint16x8_t shifts = vmovl_u8(vcreate_u8(bytes));
  int32x4_t back = vnegq_s32(vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(shifts))));
  ew_quad q;
  q.bias = vreinterpretq_s32_u8(vld1q_u8(c->bias + 4 * o));
  q.multiplier = vreinterpretq_s32_u8(vld1q_u8(c->multiplier + 4 * o));
  q.back[0] = vmovl_s32(vget_low_s32(back));
  q.back[1] = vmovl_s32(vget_high_s32(back));
  q.zero_point = vdupq_n_s32(c->zero_point);
  q.low = vdupq_n_s32(c->low);
  q.high = vdupq_n_s32(c->high);
  return q;
}
EW_INLINE void ew_quad_store(const ew_quad *q, ew_sums4 sums, int8_t *to) {
  int32x4_t biased = vaddq_s32(sums, q->bias);
  int64x2_t first = vrshlq_s64(vmull_s32(vget_low_s32(biased), vget_low_s32(q->multiplier)), q->back[0]);
  int64x2_t second = vrshlq_s64(vmull_s32(vget_high_s32(biased), vget_high_s32(q->multiplier)), q->back[1]);
  int32x4_t all = vqaddq_s32(vcombine_s32(vqmovn_s64(first), vqmovn_s64(second)), q->zero_point);
  int16x4_t narrow = vmovn_s32(vminq_s32(vmaxq_s32(all, q->low), q->high));
  uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(narrow, narrow))), 0);
  __builtin_memcpy(to, &four, sizeof four);
}

#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define EW_STEP 16
typedef v128_t ew_bytes;
typedef v128_t ew_lanes;
EW_INLINE ew_bytes ew_load(const int8_t *p) { return wasm_v128_load(p); }
EW_INLINE ew_bytes ew_load_half(const int8_t *p) { return wasm_v128_load64_zero(p); }
EW_INLINE ew_bytes ew_kept(ew_bytes x, ew_bytes mask) { return wasm_v128_and(x, mask); }
EW_INLINE ew_lanes ew_zero(void) { return wasm_i32x4_const(0, 0, 0, 0); }
EW_INLINE ew_lanes ew_step(ew_lanes sum, ew_bytes a, ew_bytes w) {
  v128_t pairs = wasm_i16x8_add(wasm_i16x8_extmul_low_i8x16(a, w), wasm_i16x8_extmul_high_i8x16(a, w));
  return wasm_i32x4_add(sum, wasm_i32x4_extadd_pairwise_i16x8(pairs));
}
EW_INLINE int32_t ew_total(ew_lanes s) {
  return (int32_t)((uint32_t)wasm_i32x4_extract_lane(s, 0) + (uint32_t)wasm_i32x4_extract_lane(s, 1) +
                   (uint32_t)wasm_i32x4_extract_lane(s, 2) + (uint32_t)wasm_i32x4_extract_lane(s, 3));
}

#elif defined(__AVX2__)
#include <immintrin.h>
EW_INLINE int32_t ew_total256(__m256i s) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
/* The instruction multiplies unsigned by signed bytes: rows are read with 128 added, and one more row, of 128s, gives
 * what that adds to every sum. */
#define EW_STEP 64
#define EW_PARTS
#define EW_OFFSET 1
typedef __m512i ew_bytes;
typedef __m512i ew_lanes;
EW_INLINE ew_bytes ew_load(const int8_t *p) { return _mm512_loadu_si512((const void *)p); }
EW_INLINE ew_bytes ew_load_part(const int8_t *p, size_t n) {
  return _mm512_maskz_loadu_epi8(((__mmask64)1 << n) - 1, p);
}
EW_INLINE ew_bytes ew_offset(void) { return _mm512_set1_epi8(-128); }
EW_INLINE ew_bytes ew_row(ew_bytes x) { return _mm512_xor_si512(x, ew_offset()); }
EW_INLINE ew_lanes ew_zero(void) { return _mm512_setzero_si512(); }
EW_INLINE ew_lanes ew_step(ew_lanes sum, ew_bytes a, ew_bytes w) { return _mm512_dpbusd_epi32(sum, a, w); }
EW_INLINE __m256i ew_folded(ew_lanes s) {
  return _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
}
EW_INLINE int32_t ew_total(ew_lanes s) { return ew_total256(ew_folded(s)); }

#define EW_QUAD
typedef __m128i ew_sums4;
typedef struct {
  __m256i multiplier, half, shift, zero_point, low, high;
  __m128i bias;
} ew_quad;
EW_INLINE ew_sums4 ew_total4(const ew_lanes *s) {
  __m256i first = _mm256_hadd_epi32(ew_folded(s[0]), ew_folded(s[1]));
  __m256i all = _mm256_hadd_epi32(first, _mm256_hadd_epi32(ew_folded(s[2]), ew_folded(s[3])));
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}
EW_INLINE ew_sums4 ew_minus4(ew_sums4 a, ew_sums4 b) { return _mm_sub_epi32(a, b); }
EW_INLINE ew_quad ew_quad_of(const ew_channels *c, size_t o) {
  ew_quad q;
  q.bias = _mm_loadu_si128((const void *)(c->bias + 4 * o));
  q.multiplier = _mm256_cvtepi32_epi64(_mm_loadu_si128((const void *)(c->multiplier + 4 * o)));
  q.shift = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(ew_word(c->shift + o)));
  q.half = _mm256_sllv_epi64(_mm256_set1_epi64x(1), _mm256_sub_epi64(q.shift, _mm256_set1_epi64x(1)));
  q.zero_point = _mm256_set1_epi64x(c->zero_point);
  q.low = _mm256_set1_epi64x(c->low - c->zero_point);
  q.high = _mm256_set1_epi64x(c->high - c->zero_point);
  return q;
}
EW_INLINE void ew_quad_store(const ew_quad *q, ew_sums4 sums, int8_t *to) {
  __m256i product = _mm256_mul_epi32(_mm256_cvtepi32_epi64(_mm_add_epi32(sums, q->bias)), q->multiplier);
  __m256i value = _mm256_srav_epi64(_mm256_add_epi64(product, q->half), q->shift);
  value = _mm256_min_epi64(_mm256_max_epi64(value, q->low), q->high);
  int32_t four = _mm_cvtsi128_si32(_mm256_cvtepi64_epi8(_mm256_add_epi64(value, q->zero_point)));
  __builtin_memcpy(to, &four, sizeof four);
}
#else
#define EW_STEP 16
typedef __m256i ew_bytes;
typedef __m256i ew_lanes;
EW_INLINE ew_bytes ew_load(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }
EW_INLINE ew_bytes ew_load_half(const int8_t *p) {
  return _mm256_cvtepi8_epi16(_mm_loadl_epi64((const void *)p));
}
EW_INLINE ew_bytes ew_kept(ew_bytes x, ew_bytes mask) { return _mm256_and_si256(x, mask); }
EW_INLINE ew_lanes ew_zero(void) { return _mm256_setzero_si256(); }
EW_INLINE ew_lanes ew_step(ew_lanes sum, ew_bytes a, ew_bytes w) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, w));
}
EW_INLINE int32_t ew_total(ew_lanes s) { return ew_total256(s); }
#endif

#else
#define EW_STEP 1
#endif

#if EW_STEP == 1
typedef int32_t ew_bytes;
typedef int32_t ew_lanes;
EW_INLINE ew_bytes ew_load(const int8_t *p) { return *p; }
EW_INLINE ew_bytes ew_load_half(const int8_t *p) { return *p; }
EW_INLINE ew_bytes ew_kept(ew_bytes x, ew_bytes mask) { return x & mask; }
EW_INLINE ew_lanes ew_zero(void) { return 0; }
EW_INLINE ew_lanes ew_step(ew_lanes sum, ew_bytes a, ew_bytes w) {
  return (int32_t)((uint32_t)sum + (uint32_t)(a * w));
}
EW_INLINE int32_t ew_total(ew_lanes s) { return s; }
#endif

#if !defined(EW_OFFSET)
#define EW_OFFSET 0
EW_INLINE ew_bytes ew_row(ew_bytes x) { return x; }
#endif

#endif
