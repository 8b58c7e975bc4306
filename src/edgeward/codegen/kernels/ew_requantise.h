/* Requantisation, the one rounding rule of every operator. Unsigned steps and masked shifts: defined for any input. */
#ifndef EW_REQUANTISE_H
#define EW_REQUANTISE_H

#include "ew_kernels.h"

#define EW_INLINE static inline __attribute__((always_inline))

EW_INLINE int32_t ew_word(const uint8_t *p) {
  return (int32_t)((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

EW_INLINE int64_t ew_rounded(int32_t sum, int32_t multiplier, uint32_t shift) {
  uint64_t product = (uint64_t)((int64_t)sum * multiplier) + ((uint64_t)1 << ((shift - 1u) & 63u));
  return (int64_t)product >> (shift & 63u);
}

/* clamp(zero_point + value, low, high); the sum is formed only when it is small. */
EW_INLINE int8_t ew_clamped(int32_t zero_point, int64_t value, int32_t low, int32_t high) {
  value = value < low - zero_point ? low - zero_point : value;
  return (int8_t)(zero_point + (int32_t)(value > high - zero_point ? high - zero_point : value));
}

EW_INLINE int8_t ew_requantised(int32_t sum, const ew_scale *s) {
  return ew_clamped(s->zero_point, ew_rounded(sum, s->multiplier, (uint32_t)s->shift), s->low, s->high);
}

EW_INLINE int8_t ew_channel(int32_t sum, const ew_channels *c, size_t o) {
  int32_t biased = (int32_t)((uint32_t)sum + (uint32_t)ew_word(c->bias + 4 * o));
  int64_t value = ew_rounded(biased, ew_word(c->multiplier + 4 * o), c->shift[o]);
  return ew_clamped(c->zero_point, value, c->low, c->high);
}

#endif
