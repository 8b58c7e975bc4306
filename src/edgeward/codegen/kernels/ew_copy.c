/* Copies in 16-byte pieces; the last piece overlaps the one before instead of going byte by byte. */
#include "ew_kernels.h"

/* A loop of constant length, or a copy of constant size, becomes one load and one store. */
static void ew_copy16(int8_t *restrict to, const int8_t *restrict from) {
  for (int i = 0; i < 16; i++) to[i] = from[i];
}

void ew_copy(int8_t *restrict to, const int8_t *restrict from, size_t n) {
  size_t i = 0;
  if (n >= 16) {
    for (; i + 64 <= n; i += 64)
      for (size_t j = 0; j < 64; j += 16) ew_copy16(to + i + j, from + i + j);
    for (; i + 16 <= n; i += 16) ew_copy16(to + i, from + i);
    if (i < n) ew_copy16(to + n - 16, from + n - 16);
  } else if (n >= 8) {
    __builtin_memcpy(to, from, 8);
    __builtin_memcpy(to + n - 8, from + n - 8, 8);
  } else if (n >= 4) {
    __builtin_memcpy(to, from, 4);
    __builtin_memcpy(to + n - 4, from + n - 4, 4);
  } else {
    for (; i < n; i++) to[i] = from[i];
  }
}

void ew_fill(int8_t *to, int32_t value, size_t n) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) to[i + (size_t)j] = (int8_t)value;
  for (; i < n; i++) to[i] = (int8_t)value;
}
