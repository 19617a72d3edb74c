/* Matrix products for lstm_steps.h: tiles whose sums stay in registers, and products made of them. */

typedef float NAME(Vector) __attribute__((vector_size(4 * LANES)));
typedef float NAME(VectorAnywhere) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define Vector NAME(Vector)
#define LOAD(from) ((Vector)*(const NAME(VectorAnywhere) *)(from))
#define STORE(to, values) (*(NAME(VectorAnywhere) *)(to) = (values))

/* out[r, :] = start + sum over k of a[r, k] * b[k, :] for n_rows rows and VECTORS vectors of columns.
 *
 * k runs through n_segments pieces of a row of a. gathered: row k of b is at kept[k]; else b's rows follow each other
 * (with bfloat16, already in pairs), width columns each. start: 0 zeros, 1 bias, 2 what is there.
 */
INLINE TARGET void NAME(tile)(const int n_rows, const int gathered, const int start, float *out,
                              const int32_t *out_rows, int64_t out_stride, const float *bias, const Operand *a,
                              const int32_t *a_rows, int64_t a_stride, int64_t n_segments, int64_t length,
                              int64_t segment_stride, const Operand *b, int64_t width, const int32_t *kept) {
    Vector sums[MOST][VECTORS];
    const Operand *from[MOST];
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        from[r] = a + (a_rows ? a_rows[r] : r * a_stride);
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            sums[r][v] = start == 0 ? (Vector){0}
                         : start == 1 ? LOAD(bias + v * LANES)
                                      : LOAD(out + (out_rows ? out_rows[r] : r * out_stride) + v * LANES);
    }
    for (int64_t s = 0; s < n_segments; s++) {
#if HALF
        for (int64_t k = 0; k < length; k += 2) {
            __m512i row[VECTORS];
            if (gathered) {
                __m512i one = _mm512_loadu_si512(b + kept[k]), other = _mm512_loadu_si512(b + kept[k + 1]);
                row[0] = _mm512_unpacklo_epi16(one, other);
                row[1] = _mm512_unpackhi_epi16(one, other);
            } else {
                for (int v = 0; v < VECTORS; v++) row[v] = _mm512_loadu_si512(b + v * 2 * LANES);
                b += 2 * width;
            }
#pragma GCC unroll 12
            for (int r = 0; r < n_rows; r++) {
                int32_t pair;
                memcpy(&pair, from[r] + k, sizeof pair);
                __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++)
                    sums[r][v] = (Vector)_mm512_dpbf16_ps((__m512)sums[r][v], value, (__m512bh)row[v]);
            }
        }
#else
        for (int64_t k = 0; k < length; k++) {
            const float *at = gathered ? b + kept[k] : b;
            Vector row[VECTORS];
            for (int v = 0; v < VECTORS; v++) row[v] = LOAD(at + v * LANES);
#pragma GCC unroll 12
            for (int r = 0; r < n_rows; r++) {
                Vector value = from[r][k] - (Vector){0};
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) sums[r][v] += value * row[v];
            }
            if (!gathered) b += width;
        }
#endif
#pragma GCC unroll 12
        for (int r = 0; r < n_rows; r++) from[r] += segment_stride;
    }
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            STORE(out + (out_rows ? out_rows[r] : r * out_stride) + v * LANES, sums[r][v]);
}

#if MOST > 6
#define MORE_CASES(call) \
    case 7: call(7); break; case 8: call(8); break; case 9: call(9); break; \
    case 10: call(10); break; case 11: call(11); break; case 12: call(12); break;
#else
#define MORE_CASES(call)
#endif
#define BY_ROWS(n, call)                                                                                      \
    switch (n) {                                                                                              \
    case 1: call(1); break; case 2: call(2); break; case 3: call(3); break;                                   \
    case 4: call(4); break; case 5: call(5); break; case 6: call(6); break;                                   \
    MORE_CASES(call)                                                                                          \
    }

/* The same for any number of rows, and columns. */
INLINE TARGET void NAME(rows_product)(int64_t n, int64_t n_columns, const int gathered, const int start, float *out,
                                      const int32_t *out_rows, int64_t out_stride, const float *bias,
                                      const Operand *a, const int32_t *a_rows, int64_t a_stride,
                                      int64_t n_segments, int64_t length, int64_t segment_stride, const Operand *b,
                                      int64_t width, const int32_t *kept) {
    int64_t n_tiles = (n + MOST - 1) / MOST;
    for (int64_t i = 0; i < n_tiles; i++) {
        int64_t r = n * i / n_tiles, count = n * (i + 1) / n_tiles - r;
        for (int64_t column = 0; column < n_columns; column += VECTORS * LANES) {
#define TILE(R)                                                                                                \
    NAME(tile)(R, gathered, start, out + column + (out_rows ? 0 : r * out_stride), out_rows ? out_rows + r : 0, \
               out_stride, bias ? bias + column : 0, a + (a_rows ? 0 : r * a_stride),                          \
               a_rows ? a_rows + r : 0, a_stride, n_segments, length,                                          \
               segment_stride, b + column * (HALF && !gathered ? 2 : 1), width, kept)
            BY_ROWS(count, TILE)
#undef TILE
        }
    }
}

/* out[kept[i], :] += sum over t of a[t, i] * b[rows[t], :] for n_columns columns i of a and VECTORS vectors.
 * With bfloat16, a holds pairs of tokens. */
INLINE TARGET void NAME(outer_tile)(const int n_columns, float *out, const int32_t *kept, const Operand *a,
                                    int64_t a_stride, int64_t n, const Operand *b, const int32_t *rows) {
    Vector sums[MOST][VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < n_columns; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) sums[i][v] = LOAD(out + kept[i] + v * LANES);
#if HALF
    for (int64_t t = 0; t < n; t += 2) {
        __m512i one = _mm512_loadu_si512(b + rows[t]), other = _mm512_setzero_si512();
        if (t + 1 < n) other = _mm512_loadu_si512(b + rows[t + 1]);
        __m512i row[2] = {_mm512_unpacklo_epi16(one, other), _mm512_unpackhi_epi16(one, other)};
#pragma GCC unroll 12
        for (int i = 0; i < n_columns; i++) {
            int32_t pair;
            memcpy(&pair, a + 2 * i, sizeof pair);
            __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++)
                sums[i][v] = (Vector)_mm512_dpbf16_ps((__m512)sums[i][v], value, (__m512bh)row[v]);
        }
        a += 2 * a_stride;
    }
#else
    for (int64_t t = 0; t < n; t++) {
        Vector row[VECTORS];
        for (int v = 0; v < VECTORS; v++) row[v] = LOAD(b + rows[t] + v * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < n_columns; i++) {
            Vector value = a[i] - (Vector){0};
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sums[i][v] += value * row[v];
        }
        a += a_stride;
    }
#endif
#pragma GCC unroll 12
    for (int i = 0; i < n_columns; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) STORE(out + kept[i] + v * LANES, sums[i][v]);
}

/* The same for a whole panel and any number of columns. */
static TARGET void NAME(outer_product)(float *out, const int32_t *kept, int64_t n_kept, const Operand *a,
                                       int64_t a_stride, int64_t n, const Operand *b, const int32_t *rows) {
    int64_t n_tiles = (n_kept + MOST - 1) / MOST;
    for (int64_t tile = 0; tile < n_tiles; tile++) {
        int64_t i = n_kept * tile / n_tiles, count = n_kept * (tile + 1) / n_tiles - i;
        for (int64_t column = 0; column < PANEL; column += VECTORS * LANES) {
#define TILE(R) \
    NAME(outer_tile)(R, out + column, kept + i, a + (HALF ? 2 : 1) * i, a_stride, n, b + column, rows)
            BY_ROWS(count, TILE)
#undef TILE
        }
    }
}
