/* Float matrix product with a fixed order: out[i][j] = ((a[i][0] w[0][j] + a[i][1] w[1][j]) + ...), each product and
 * each sum rounded to float32 on its own. Vector lanes hold different outputs, never parts of one sum, and fused
 * multiply-add is off (-ffp-contract=off), so every processor and the NumPy form give the same bits. */

#include <stdint.h>

#define LANES 16
#define ROWS 4
#define DOOR __attribute__((visibility("default")))

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

#define PRODUCT(NAME, TARGET)                                                                                        \
    TARGET static void NAME(const float *a, const float *w, float *out, int64_t p, int64_t o, int64_t k) {           \
        int64_t whole = o - o % LANES, rows = p - p % ROWS;                                                          \
        for (int64_t j = 0; j < whole; j += LANES) {                                                                 \
            for (int64_t i = 0; i < rows; i += ROWS) {                                                               \
                lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                                        \
                const float *x = a + i * k;                                                                          \
                for (int64_t t = 0; t < k; t++) {                                                                    \
                    lanes row = *(const lanes *)(w + t * o + j);                                                     \
                    s0 += x[t] * row, s1 += x[k + t] * row, s2 += x[2 * k + t] * row, s3 += x[3 * k + t] * row;      \
                }                                                                                                    \
                float *to = out + i * o + j;                                                                         \
                *(lanes *)to = s0, *(lanes *)(to + o) = s1, *(lanes *)(to + 2 * o) = s2, *(lanes *)(to + 3 * o) = s3; \
            }                                                                                                        \
            for (int64_t i = rows; i < p; i++) {                                                                     \
                lanes sum = {0};                                                                                     \
                for (int64_t t = 0; t < k; t++) sum += a[i * k + t] * *(const lanes *)(w + t * o + j);               \
                *(lanes *)(out + i * o + j) = sum;                                                                   \
            }                                                                                                        \
        }                                                                                                            \
        for (int64_t i = 0; i < p; i++)                                                                              \
            for (int64_t j = whole; j < o; j++) {                                                                    \
                float sum = 0.0f;                                                                                    \
                for (int64_t t = 0; t < k; t++) sum += a[i * k + t] * w[t * o + j];                                  \
                out[i * o + j] = sum;                                                                                \
            }                                                                                                        \
    }

PRODUCT(product_plain, )
#if defined(__x86_64__)
PRODUCT(product_avx2, __attribute__((target("avx2"))))
PRODUCT(product_avx512, __attribute__((target("avx512f"))))
#endif

DOOR void edgeward_ordered_matmul(const float *a, const float *w, float *out, int64_t p, int64_t o, int64_t k) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) { product_avx512(a, w, out, p, o, k); return; }
    if (__builtin_cpu_supports("avx2")) { product_avx2(a, w, out, p, o, k); return; }
#endif
    product_plain(a, w, out, p, o, k);
}
