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

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma,f16c")))
/* The processor looks ahead within a page of memory only: ask for what comes, further than one row. */
#define AHEAD 2048

int featurestore_scan_supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

AVX2 static inline float sum8(__m256 all) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

AVX2 static inline __m256 floats8(const char *in, int64_t i) { return _mm256_loadu_ps((const float *)in + i); }

AVX2 static inline __m256 halves8(const char *in, int64_t i) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)in + i)));
}

AVX2 static inline __m256 bytes8(const char *in, int64_t i) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(in + i))));
}

AVX512 static inline float sum16(__m512 all) { return _mm512_reduce_add_ps(all); }

AVX512 static inline __m512 floats16(const char *in, int64_t i) { return _mm512_loadu_ps((const float *)in + i); }

AVX512 static inline __m512 halves16(const char *in, int64_t i) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)in + i)));
}

AVX512 static inline __m512 bytes16(const char *in, int64_t i) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(in + i))));
}

AVX2 static inline float one_float(const char *in, int64_t i) {
    float value;
    memcpy(&value, (const float *)in + i, sizeof value);
    return value;
}

AVX2 static inline float one_half(const char *in, int64_t i) {
    uint16_t half;
    memcpy(&half, (const uint16_t *)in + i, sizeof half);
    return _cvtsh_ss(half);
}

AVX2 static inline float one_byte(const char *in, int64_t i) { return (float)(signed char)in[i]; }

/* For each row: the sum of value * query and the sum of value * value. WEIGH multiplies a value with the norms of
 * int8 before; four sums at a time hide the delay of each addition. WIDE is how many numbers a vector holds. */
#define SCAN(NAME, TARGET, VECTOR, WIDE, P, SUM, LOAD, ONE, SIZE, WEIGH, WEIGH_ONE)                                    \
    TARGET static void NAME(const char *values, int64_t n_rows, int64_t row_bytes, int64_t n, const float *norms,     \
                            const float *query, float *dots, float *squares) {                                       \
        (void)norms;                                                                                                 \
        for (int64_t row = 0; row < n_rows; row++, values += row_bytes) {                                            \
            VECTOR dot[4], square[4];                                                                                \
            for (int j = 0; j < 4; j++) dot[j] = square[j] = P(setzero_ps)();                                        \
            int64_t i = 0;                                                                                           \
            for (; i + 4 * WIDE <= n; i += 4 * WIDE) {                                                               \
                for (int64_t at = 0; at < 4 * WIDE * SIZE; at += 64)                                                 \
                    _mm_prefetch(values + i * SIZE + at + AHEAD, _MM_HINT_T0);                                       \
                for (int j = 0; j < 4; j++) {                                                                        \
                    VECTOR value = WEIGH(P, LOAD(values, i + WIDE * j), norms + i + WIDE * j);                        \
                    dot[j] = P(fmadd_ps)(value, P(loadu_ps)(query + i + WIDE * j), dot[j]);                           \
                    square[j] = P(fmadd_ps)(value, value, square[j]);                                                \
                }                                                                                                    \
            }                                                                                                        \
            float dot_sum = SUM(P(add_ps)(P(add_ps)(dot[0], dot[1]), P(add_ps)(dot[2], dot[3])));                     \
            float square_sum = SUM(P(add_ps)(P(add_ps)(square[0], square[1]), P(add_ps)(square[2], square[3])));      \
            for (; i < n; i++) {                                                                                     \
                float value = WEIGH_ONE(ONE(values, i), norms + i);                                                  \
                dot_sum += value * query[i];                                                                         \
                square_sum += value * value;                                                                         \
            }                                                                                                        \
            dots[row] = dot_sum;                                                                                     \
            squares[row] = square_sum;                                                                               \
        }                                                                                                            \
    }

#define P256(name) _mm256_##name
#define P512(name) _mm512_##name
#define PLAIN(P, value, norms) (value)
#define PLAIN_ONE(value, norms) (value)
#define BY_NORMS(P, value, norms) P(mul_ps)(value, P(loadu_ps)(norms))
#define BY_NORM(value, norms) ((value) * *(norms))

SCAN(scan_floats8, AVX2, __m256, 8, P256, sum8, floats8, one_float, 4, PLAIN, PLAIN_ONE)
SCAN(scan_halves8, AVX2, __m256, 8, P256, sum8, halves8, one_half, 2, PLAIN, PLAIN_ONE)
SCAN(scan_bytes8, AVX2, __m256, 8, P256, sum8, bytes8, one_byte, 1, BY_NORMS, BY_NORM)
SCAN(scan_floats16, AVX512, __m512, 16, P512, sum16, floats16, one_float, 4, PLAIN, PLAIN_ONE)
SCAN(scan_halves16, AVX512, __m512, 16, P512, sum16, halves16, one_half, 2, PLAIN, PLAIN_ONE)
SCAN(scan_bytes16, AVX512, __m512, 16, P512, sum16, bytes16, one_byte, 1, BY_NORMS, BY_NORM)

typedef void Scan(const char *, int64_t, int64_t, int64_t, const float *, const float *, float *, float *);
static Scan *const SCANS[2][3] = {{scan_floats8, scan_halves8, scan_bytes8},
                                  {scan_floats16, scan_halves16, scan_bytes16}};

/* values: of the first row; rows lie row_bytes apart and have n numbers. norms: (n,), INT8 only. dots, squares: (n_rows,).
 * The scales of INT8 rows are left to the caller. Returns 0, or 1 for a type there is no code for. */
int featurestore_scan(const char *values, int64_t type, int64_t n_rows, int64_t row_bytes, int64_t n, const float *norms,
                      const float *query, float *dots, float *squares) {
    if (type < FLOAT32 || type > INT8) return 1;
    SCANS[has_avx512()][type](values, n_rows, row_bytes, n, norms, query, dots, squares);
    return 0;
}

#else

int featurestore_scan_supported(void) { return 0; }

int featurestore_scan(const char *values, int64_t type, int64_t n_rows, int64_t row_bytes, int64_t n, const float *norms,
                      const float *query, float *dots, float *squares) {
    return 1;
}

#endif
