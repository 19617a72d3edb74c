/* The products of one query with every token of a shard, in one pass over the bytes as they are stored.
 *
 * Read by featurestore/search/compiled.py through ctypes. The instructions are those of x86 processors since 2013
 * (AVX2, FMA, F16C); elsewhere featurestore_scan_supported() says 0 and NumPy does the work.
 */
#include <stdint.h>
#include <string.h>

#define VERSION 1

enum { FLOAT32 = 0, FLOAT16 = 1, INT8 = 2 };

int featurestore_scan_version(void) { return VERSION; }

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define VECTORISED __attribute__((target("avx2,fma,f16c")))
/* The processor looks ahead within a page of memory only: ask for what comes, further than one row. */
#define AHEAD 2048

int featurestore_scan_supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

VECTORISED static float sum_of(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 all = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

VECTORISED static inline __m256 eight_floats(const char *in, int64_t i) {
    return _mm256_loadu_ps((const float *)in + i);
}

VECTORISED static inline __m256 eight_halves(const char *in, int64_t i) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)in + i)));
}

VECTORISED static inline __m256 eight_bytes(const char *in, int64_t i) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(in + i))));
}

VECTORISED static inline float one_float(const char *in, int64_t i) {
    float value;
    memcpy(&value, (const float *)in + i, sizeof value);
    return value;
}

VECTORISED static inline float one_half(const char *in, int64_t i) {
    uint16_t half;
    memcpy(&half, (const uint16_t *)in + i, sizeof half);
    return _cvtsh_ss(half);
}

VECTORISED static inline float one_byte(const char *in, int64_t i) { return (float)(signed char)in[i]; }

/* For each row: the sum of value * query and the sum of value * value. WEIGHT stands for what a value is multiplied
 * with before it is squared: the norms of int8, 1 otherwise. Four sums at a time hide the delay of each addition. */
#define SCAN(NAME, EIGHT, ONE, SIZE, WEIGH_EIGHT, WEIGH_ONE)                                                         \
    VECTORISED static void NAME(const char *values, int64_t n_rows, int64_t row_bytes, int64_t n, const float *norms, \
                                const float *query, float *dots, float *squares) {                                   \
        (void)norms;                                                                                                 \
        for (int64_t row = 0; row < n_rows; row++, values += row_bytes) {                                            \
            __m256 dot[4], square[4];                                                                                \
            for (int j = 0; j < 4; j++) dot[j] = square[j] = _mm256_setzero_ps();                                    \
            int64_t i = 0;                                                                                           \
            for (; i + 32 <= n; i += 32) {                                                                           \
                for (int64_t at = 0; at < 32 * SIZE; at += 64) _mm_prefetch(values + i * SIZE + at + AHEAD, _MM_HINT_T0); \
                for (int j = 0; j < 4; j++) {                                                                        \
                    __m256 value = WEIGH_EIGHT(EIGHT(values, i + 8 * j), norms + i + 8 * j);                         \
                    dot[j] = _mm256_fmadd_ps(value, _mm256_loadu_ps(query + i + 8 * j), dot[j]);                     \
                    square[j] = _mm256_fmadd_ps(value, value, square[j]);                                            \
                }                                                                                                    \
            }                                                                                                        \
            float dot_sum = sum_of(dot[0], dot[1], dot[2], dot[3]);                                                  \
            float square_sum = sum_of(square[0], square[1], square[2], square[3]);                                   \
            for (; i < n; i++) {                                                                                     \
                float value = WEIGH_ONE(ONE(values, i), norms + i);                                                  \
                dot_sum += value * query[i];                                                                         \
                square_sum += value * value;                                                                         \
            }                                                                                                        \
            dots[row] = dot_sum;                                                                                     \
            squares[row] = square_sum;                                                                               \
        }                                                                                                            \
    }

#define AS_IT_IS(value, norms) (value)
#define BY_EIGHT_NORMS(value, norms) _mm256_mul_ps(value, _mm256_loadu_ps(norms))
#define BY_ONE_NORM(value, norms) ((value) * *(norms))

SCAN(scan_floats, eight_floats, one_float, 4, AS_IT_IS, AS_IT_IS)
SCAN(scan_halves, eight_halves, one_half, 2, AS_IT_IS, AS_IT_IS)
SCAN(scan_bytes, eight_bytes, one_byte, 1, BY_EIGHT_NORMS, BY_ONE_NORM)

/* values: of the first row; rows lie row_bytes apart and have n numbers. norms: (n,), INT8 only. dots, squares: (n_rows,).
 * The scales of INT8 rows are left to the caller. Returns 0, or 1 for a type there is no code for. */
int featurestore_scan(const char *values, int64_t type, int64_t n_rows, int64_t row_bytes, int64_t n, const float *norms,
                      const float *query, float *dots, float *squares) {
    if (type == FLOAT32)
        scan_floats(values, n_rows, row_bytes, n, norms, query, dots, squares);
    else if (type == FLOAT16)
        scan_halves(values, n_rows, row_bytes, n, norms, query, dots, squares);
    else if (type == INT8)
        scan_bytes(values, n_rows, row_bytes, n, norms, query, dots, squares);
    else
        return 1;
    return 0;
}

#else

int featurestore_scan_supported(void) { return 0; }

int featurestore_scan(const char *values, int64_t type, int64_t n_rows, int64_t row_bytes, int64_t n, const float *norms,
                      const float *query, float *dots, float *squares) {
    return 1;
}

#endif
