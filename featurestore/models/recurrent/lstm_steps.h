/* The work of lstm.c for one instruction set and one type of products; included once for each.
 *
 * SUFFIX ends its names, TARGET is the attribute of its functions, HALF says whether products are of bfloat16,
 * VECTORS and MOST how many vectors of columns and how many rows have their sums in registers.
 */

#if HALF
typedef uint16_t NAME(Operand);
#else
typedef float NAME(Operand);
#endif
#define Operand NAME(Operand)

/* Arithmetic of vectors is written for the target too: GCC takes vectors apart in functions that have none. */
#define load NAME(load)
#define store NAME(store)
#define load_some NAME(load_some)
#define store_some NAME(store_some)
#define all NAME(all)
#define chosen NAME(chosen)
#define exponential NAME(exponential)
#define magnitude NAME(magnitude)
#define with_sign_of NAME(with_sign_of)
#define sigmoid NAME(sigmoid)
#define tangent NAME(tangent)

INLINE TARGET Floats load(const float *from) {
    Floats values;
    memcpy(&values, from, sizeof values);
    return values;
}

INLINE TARGET void store(float *to, Floats values) { memcpy(to, &values, sizeof values); }

/* Of sixteen values, those that there are. */
INLINE TARGET Floats load_some(const float *from, int64_t n) {
    if (n >= WIDTH) return load(from);
    Floats values = {0};
    for (int64_t i = 0; i < n; i++) values[i] = from[i];
    return values;
}

INLINE TARGET void store_some(float *to, Floats values, int64_t n) {
    if (n >= WIDTH)
        store(to, values);
    else
        for (int64_t i = 0; i < n; i++) to[i] = values[i];
}

INLINE TARGET Floats all(float value) { return value - (Floats){0}; }

INLINE TARGET Floats chosen(Ints where, Floats yes, Floats no) { return (Floats)(((Ints)yes & where) | ((Ints)no & ~where)); }

/* exp for arguments of at most 0: x = n ln 2 + r, a polynomial in r, n added to the exponent. After S. Moshier's
 * Cephes library, expf: one unit in the last place. */
INLINE TARGET Floats exponential(Floats x) {
    x = chosen(x < all(-87.0f), all(-87.0f), x);
    Floats shifted = x * all(1.44269504088896341f) + all(12582912.0f);
    Floats n = shifted - all(12582912.0f);
    Floats r = x - n * all(0.693359375f) - n * all(-2.12194440e-4f);
    Floats p = all(1.9875691500e-4f);
    p = p * r + all(1.3981999507e-3f);
    p = p * r + all(8.3334519073e-3f);
    p = p * r + all(4.1665795894e-2f);
    p = p * r + all(1.6666665459e-1f);
    p = p * r + all(5.0000001201e-1f);
    p = p * r * r + r + all(1.0f);
    Ints exponents = __builtin_convertvector(n, Ints);
    return (Floats)((Ints)p + (exponents << 23));
}

INLINE TARGET Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

INLINE TARGET Floats with_sign_of(Floats values, Floats signs) {
    return (Floats)((Ints)values | ((Ints)signs & (int32_t)0x80000000));
}

INLINE TARGET Floats sigmoid(Floats x) {
    Floats small = exponential(-magnitude(x)); /* of the negative side, which cannot overflow */
    Floats result = chosen(x < all(0.0f), small, all(1.0f)) / (all(1.0f) + small);
    return chosen(x != x, x, result);
}

INLINE TARGET Floats tangent(Floats x) { /* hyperbolic; Cephes' polynomial below 0.625 */
    Floats size = magnitude(x), z = x * x;
    Floats p = all(-5.70498872745e-3f);
    p = p * z + all(2.06390887954e-2f);
    p = p * z + all(-5.37397155531e-2f);
    p = p * z + all(1.33314422036e-1f);
    p = p * z + all(-3.33332819422e-1f);
    Floats near = p * z * x + x;
    Floats small = exponential(all(-2.0f) * size);
    Floats far = with_sign_of((all(1.0f) - small) / (all(1.0f) + small), x);
    return chosen(x != x, x, chosen(size < all(0.625f), near, far));
}

INLINE TARGET Operand NAME(operand)(float value) {
#if HALF
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1);
    else bits |= 1u << 22;
    return (uint16_t)(bits >> 16);
#else
    return value;
#endif
}

#if HALF
/* A row of a panel: its columns in the order in which pairs are made of them. */
INLINE TARGET void NAME(store_panel)(Operand *to, Floats values[4]) {
    Operand natural[PANEL];
    for (int gate = 0; gate < 4; gate++)
        _mm256_storeu_si256((__m256i *)(natural + gate * WIDTH),
                            (__m256i)_mm512_cvtneps_pbh((__m512)values[gate]));
    for (int half = 0; half < 2; half++) {
        const __m256i *from = (const __m256i *)(natural + half * 32);
        __m512i one = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 0, 2, 0, 3, 0),
                                               _mm512_castsi256_si512(_mm256_loadu_si256(from)));
        __m512i other = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 0, 1, 0, 2, 0, 3),
                                                 _mm512_castsi256_si512(_mm256_loadu_si256(from + 1)));
        _mm512_storeu_si512(to + half * 32, _mm512_mask_blend_epi64(0xaa, one, other));
    }
}
#endif

/* out[r, :] = start + sum over k of a[r, k] * b[k, :] for n_rows rows and VECTORS vectors of columns.
 *
 * k runs through n_segments pieces of a row of a. gathered: row k of b is at kept[k]; else b's rows follow each other
 * (with bfloat16, already in pairs), width columns each. start: 0 zeros, 1 bias, 2 what is there.
 */
INLINE TARGET void NAME(tile)(const int n_rows, const int gathered, const int start, float *out,
                              const int32_t *out_rows, int64_t out_stride, const float *bias, const Operand *a,
                              const int32_t *a_rows, int64_t a_stride, int64_t n_segments, int64_t length,
                              int64_t segment_stride, const Operand *b, int64_t width, const int32_t *kept) {
    Floats sums[MOST][VECTORS];
    const Operand *from[MOST];
#pragma GCC unroll 12
    for (int r = 0; r < n_rows; r++) {
        from[r] = a + (a_rows ? a_rows[r] : r * a_stride);
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            sums[r][v] = start == 0 ? all(0.0f)
                         : start == 1 ? load(bias + v * WIDTH)
                                      : load(out + (out_rows ? out_rows[r] : r * out_stride) + v * WIDTH);
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
                for (int v = 0; v < VECTORS; v++) row[v] = _mm512_loadu_si512(b + v * 2 * WIDTH);
                b += 2 * width;
            }
#pragma GCC unroll 12
            for (int r = 0; r < n_rows; r++) {
                int32_t pair;
                memcpy(&pair, from[r] + k, sizeof pair);
                __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++)
                    sums[r][v] = (Floats)_mm512_dpbf16_ps((__m512)sums[r][v], value, (__m512bh)row[v]);
            }
        }
#else
        for (int64_t k = 0; k < length; k++) {
            const float *at = gathered ? b + kept[k] : b;
            Floats row[VECTORS];
            for (int v = 0; v < VECTORS; v++) row[v] = load(at + v * WIDTH);
#pragma GCC unroll 12
            for (int r = 0; r < n_rows; r++) {
                Floats value = all(from[r][k]);
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
            store(out + (out_rows ? out_rows[r] : r * out_stride) + v * WIDTH, sums[r][v]);
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

/* The same for any number of rows, and n_vectors vectors of columns. */
INLINE TARGET void NAME(rows_product)(int64_t n, int n_vectors, const int gathered, const int start, float *out,
                                      const int32_t *out_rows, int64_t out_stride, const float *bias,
                                      const Operand *a, const int32_t *a_rows, int64_t a_stride,
                                      int64_t n_segments, int64_t length, int64_t segment_stride, const Operand *b,
                                      int64_t width, const int32_t *kept) {
    int64_t n_tiles = (n + MOST - 1) / MOST;
    for (int64_t i = 0; i < n_tiles; i++) {
        int64_t r = n * i / n_tiles, count = n * (i + 1) / n_tiles - r;
        for (int v = 0; v < n_vectors; v += VECTORS) {
            int64_t column = v * WIDTH;
#define TILE(R)                                                                                                \
    NAME(tile)(R, gathered, start, out + column + (out_rows ? 0 : r * out_stride), out_rows ? out_rows + r : 0, \
               out_stride, bias ? bias + column : 0, a + (a_rows ? 0 : r * a_stride), a_rows ? a_rows + r : 0, a_stride, n_segments,   \
               length, segment_stride, b + column * (HALF && !gathered ? 2 : 1), width, kept)
            BY_ROWS(count, TILE)
#undef TILE
        }
    }
}

/* out[kept[i], :] += sum over t of a[t, i] * b[rows[t], :] for n_columns columns i of a and VECTORS vectors.
 * With bfloat16, a holds pairs of tokens. */
INLINE TARGET void NAME(outer_tile)(const int n_columns, float *out, const int32_t *kept, const Operand *a,
                                    int64_t a_stride, int64_t n, const Operand *b, const int32_t *rows) {
    Floats sums[MOST][VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < n_columns; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) sums[i][v] = load(out + kept[i] + v * WIDTH);
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
                sums[i][v] = (Floats)_mm512_dpbf16_ps((__m512)sums[i][v], value, (__m512bh)row[v]);
        }
        a += 2 * a_stride;
    }
#else
    for (int64_t t = 0; t < n; t++) {
        Floats row[VECTORS];
        for (int v = 0; v < VECTORS; v++) row[v] = load(b + rows[t] + v * WIDTH);
#pragma GCC unroll 12
        for (int i = 0; i < n_columns; i++) {
            Floats value = all(a[i]);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sums[i][v] += value * row[v];
        }
        a += a_stride;
    }
#endif
#pragma GCC unroll 12
    for (int i = 0; i < n_columns; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) store(out + kept[i] + v * WIDTH, sums[i][v]);
}

/* The same for a whole panel and any number of columns. */
static TARGET void NAME(outer_product)(float *out, const int32_t *kept, int64_t n_kept, const Operand *a,
                                       int64_t a_stride, int64_t n, const Operand *b, const int32_t *rows) {
    int64_t n_tiles = (n_kept + MOST - 1) / MOST;
    for (int64_t tile = 0; tile < n_tiles; tile++) {
        int64_t i = n_kept * tile / n_tiles, count = n_kept * (tile + 1) / n_tiles - i;
        for (int v = 0; v < 4; v += VECTORS) {
#define TILE(R) NAME(outer_tile)(R, out + v * WIDTH, kept + i, a + (HALF ? 2 : 1) * i, a_stride, n, b + v * WIDTH, rows)
            BY_ROWS(count, TILE)
#undef TILE
        }
    }
}

/* Vectors of a sentence: standardised, dropped columns left out. Its places among the rows. */
static TARGET void NAME(lay_out_sentence)(const Lstm *of, int64_t rank) {
    int64_t stride = stride_of(of), dim = of->dim, length = of->lengths[rank], sentence = of->order[rank];
    const float *factors = of->factors ? of->factors + sentence * dim : 0;
    int32_t *kept = of->kept + (factors ? rank * stride : 0);
    int64_t n_kept = of->n_kept[factors ? rank : 0];
    for (int64_t t = 0; t < length; t++) {
        int64_t m = of->firsts[rank] + t;
        const float *from = of->features + (sentence * of->longest + t) * dim;
        Operand *to = (Operand *)of->inputs + m * stride;
        if (factors)
            for (int64_t i = 0; i < n_kept; i++) {
                int64_t k = kept[i] / PANEL;
                float value = from[k];
                if (of->mean) value = (value - of->mean[k]) * of->scale[k];
                to[i] = NAME(operand)(value * factors[k]);
            }
        else
            for (int64_t k = 0; k < dim; k++)
                to[k] = NAME(operand)(of->mean ? (from[k] - of->mean[k]) * of->scale[k] : from[k]);
        to[n_kept] = 0; /* of an odd pair */
        of->rows[m] = PANEL * (int32_t)(of->offsets[t] + rank);
        of->rows[of->n_tokens + 1 + m] = PANEL * (int32_t)(of->offsets[length - 1 - t] + rank);
    }
    float *padding = of->outputs + (sentence * of->longest + length) * 2 * of->hidden;
    memset(padding, 0, (of->longest - length) * 2 * of->hidden * sizeof(float));
}

static TARGET void NAME(find_kept)(const Lstm *of, int64_t rank) {
    const float *factors = of->factors ? of->factors + of->order[rank] * of->dim : 0;
    int32_t *kept = of->kept + rank * stride_of(of);
    int64_t n = 0;
    for (int64_t k = 0; k < of->dim; k++)
        if (!factors || factors[k] != 0) kept[n++] = (int32_t)(PANEL * k);
    kept[n] = 0; /* of an odd pair */
    of->n_kept[rank] = n;
}

/* The weights of a panel, transposed: input's as rows, recurrent ones as rows or pairs of rows. */
static TARGET void NAME(lay_out_weights)(const Lstm *of, int64_t task) {
    int64_t n_panels = of->cells / WIDTH, d = task / n_panels, p = task % n_panels, hidden = of->hidden;
    Operand *input = (Operand *)of->packed_ih + task * of->dim * PANEL;
    Operand *recurrent = (Operand *)of->packed_hh + task * of->cells * PANEL;
    for (int64_t place = 0; place < PANEL; place++) {
        int64_t column = HALF ? interleaved(place) : place, cell = p * WIDTH + column % WIDTH;
        const float *from = of->w_ih[d] + (column / WIDTH * hidden + cell) * of->dim;
        for (int64_t k = 0; k < of->dim; k++)
            input[k * PANEL + place] = NAME(operand)(cell < hidden ? from[k] : 0);
        cell = p * WIDTH + place % WIDTH;
        from = of->w_hh[d] + (place / WIDTH * hidden + cell) * hidden;
        for (int64_t k = 0; k < of->cells; k++) {
            Operand value = NAME(operand)(cell < hidden && k < hidden ? from[k] : 0);
            if (HALF)
                recurrent[k / 2 * 2 * PANEL + 2 * place + k % 2] = value;
            else
                recurrent[k * PANEL + place] = value;
        }
    }
}

static TARGET void NAME(lay_out)(const Lstm *of, int64_t task) {
    int64_t n_weights = 2 * of->cells / WIDTH;
    if (task < n_weights)
        NAME(lay_out_weights)(of, task);
    else {
        int64_t rank = task - n_weights;
        if (of->factors) NAME(find_kept)(of, rank);
        NAME(lay_out_sentence)(of, rank);
    }
}

/* What inputs and biases add to the gates of a panel. */
static TARGET void NAME(input_product)(const Lstm *of, int64_t task) {
    int64_t n_panels = of->cells / WIDTH, d = task / n_panels, p = task % n_panels, hidden = of->hidden;
    float bias[PANEL];
    for (int64_t column = 0; column < PANEL; column++) {
        int64_t cell = p * WIDTH + column % WIDTH, at = column / WIDTH * hidden + cell;
        bias[column] = cell < hidden ? of->b_ih[d][at] + of->b_hh[d][at] : 0;
    }
    const int32_t *rows = of->rows + d * (of->n_tokens + 1);
    const Operand *weights = (const Operand *)of->packed_ih + task * of->dim * PANEL;
    for (int64_t i = 0; i < n_groups(of); i++) {
        Group group = group_of(of, i);
        NAME(rows_product)(group.n, 4, 1, 1, of->gates + task * of->n_tokens * PANEL, rows + group.first, 0, bias,
                           (const Operand *)of->inputs + group.first * stride_of(of), 0, stride_of(of), 1,
                           group.n_kept, 0, weights, PANEL, group.kept);
    }
}

/* All steps of a share of the sentences in one direction. */
static TARGET void NAME(walk)(const Lstm *of, int64_t task) {
    int64_t d = task % 2, begin = share_begin(of, task / 2), end = share_begin(of, task / 2 + 1);
    int64_t n_panels = of->cells / WIDTH, C = of->cells, N = of->n_tokens, H = of->hidden;
    float *memory = of->memory + d * N * C;
    Operand *hidden = (Operand *)of->hidden_rows + d * N * C;
    for (int64_t t = 0; t < of->n_steps && of->counts[t] > begin; t++) {
        int64_t n = least(of->counts[t], end) - begin, row = of->offsets[t] + begin;
        int64_t before = t ? of->offsets[t - 1] + begin : 0;
        for (int64_t p = 0; p < n_panels; p++) {
            float *gates = of->gates + ((d * n_panels + p) * N + row) * PANEL;
            if (t)
                NAME(rows_product)(n, 4, 0, 2, gates, 0, PANEL, 0, hidden + before * C, 0, C, 1, C, 0,
                                   (const Operand *)of->packed_hh + (d * n_panels + p) * C * PANEL, PANEL, 0);
            int64_t n_cells = H - p * WIDTH;
            for (int64_t r = 0; r < n; r++) {
                float *at = gates + r * PANEL;
                Floats in = sigmoid(load(at)), forget = sigmoid(load(at + WIDTH));
                Floats candidate = tangent(load(at + 2 * WIDTH)), out = sigmoid(load(at + 3 * WIDTH));
                Floats state = in * candidate;
                if (t) state += forget * load(memory + (before + r) * C + p * WIDTH);
                Floats output = out * tangent(state);
                store(at, in), store(at + WIDTH, forget), store(at + 2 * WIDTH, candidate), store(at + 3 * WIDTH, out);
                store(memory + (row + r) * C + p * WIDTH, state);
                Operand *to = hidden + (row + r) * C + p * WIDTH;
#if HALF
                _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)output));
#else
                store(to, output);
#endif
                int64_t sentence = of->order[begin + r], length = of->lengths[begin + r];
                int64_t place = d ? length - 1 - t : t;
                if (n_cells <= 0) continue;
                store_some(of->outputs + ((sentence * of->longest + place) * 2 + d) * H + p * WIDTH, output, n_cells);
                if (t == length - 1) store_some(of->states + (sentence * 2 + d) * H + p * WIDTH, output, n_cells);
            }
        }
    }
}

static TARGET void NAME(forward)(const Lstm *of) {
    int64_t n_weights = 2 * of->cells / WIDTH;
    if (!of->factors) NAME(find_kept)(of, 0);
    parallel(of, NAME(lay_out), n_weights + of->n_sentences);
    parallel(of, NAME(input_product), n_weights);
    parallel(of, NAME(walk), 2 * n_shares(of));
}

/* The weights for gradients: row by row, in the order of the gates' gradients, 32 columns at a time. */
static TARGET void NAME(lay_out_rows)(const Lstm *of, const float *weights, Operand *to, int64_t n_columns,
                                      int64_t first) {
    int64_t H = of->hidden;
    for (int64_t g = 0; g < 4 * of->cells; g++) {
        int64_t place = g % PANEL, column = HALF ? interleaved(place) : place;
        int64_t cell = g / PANEL * WIDTH + column % WIDTH;
        const float *from = weights + (column / WIDTH * H + cell) * n_columns + first;
        for (int64_t i = 0; i < 32; i++) {
            Operand value = NAME(operand)(cell < H && first + i < n_columns ? from[i] : 0);
            if (HALF)
                to[g / 2 * 64 + 2 * i + g % 2] = value;
            else
                to[g * 32 + i] = value;
        }
    }
}

static TARGET void NAME(lay_out_back)(const Lstm *of, int64_t task) {
    int64_t n_back = of->cells / 32, size = 4 * of->cells * 32;
    if (task < 2 * n_back) {
        int64_t d = task / n_back, p = task % n_back;
        NAME(lay_out_rows)(of, of->w_hh[d], (Operand *)of->packed_back + task * size, of->hidden, p * 32);
        return;
    }
    task -= 2 * n_back;
    NAME(lay_out_rows)(of, of->w_ih[task % 2], (Operand *)of->packed_in + task * size, of->dim, task / 2 * 32);
}

/* The gradients of the gates in all steps of a share of the sentences in one direction, the last step first. */
static TARGET void NAME(walk_back)(const Lstm *of, int64_t task) {
    int64_t d = task % 2, begin = share_begin(of, task / 2), end = share_begin(of, task / 2 + 1);
    int64_t n_panels = of->cells / WIDTH, C = of->cells, N = of->n_tokens, H = of->hidden, n_after = 0;
    const float *memory = of->memory + d * N * C;
    Operand *d_gates = (Operand *)of->d_gates + d * n_panels * N * PANEL;
    float *d_hidden = of->d_hidden + (d * of->n_sentences + begin) * C;
    float *d_memory = of->d_memory + (d * of->n_sentences + begin) * C;
    for (int64_t t = of->n_steps - 1; t >= 0; t--) {
        if (of->counts[t] <= begin) continue;
        int64_t n = least(of->counts[t], end) - begin, row = of->offsets[t] + begin;
        int64_t before = t ? of->offsets[t - 1] + begin : 0, after = t + 1 < of->n_steps ? of->offsets[t + 1] + begin : 0;
        for (int64_t p = 0; n_after && p < C / 32; p++)
            NAME(rows_product)(n_after, 2, 0, 0, d_hidden + p * 32, 0, C, 0, d_gates + after * PANEL, 0, PANEL,
                               n_panels, PANEL, N * PANEL,
                               (const Operand *)of->packed_back + (d * (C / 32) + p) * 4 * C * 32, 32, 0);
        for (int64_t p = 0; p < n_panels; p++) {
            const float *gates = of->gates + ((d * n_panels + p) * N + row) * PANEL;
            int64_t n_cells = H - p * WIDTH;
            for (int64_t r = 0; r < n; r++) {
                const float *at = gates + r * PANEL;
                Floats in = load(at), forget = load(at + WIDTH), candidate = load(at + 2 * WIDTH);
                Floats out = load(at + 3 * WIDTH), old = all(0.0f), of_output = all(0.0f), of_state = all(0.0f);
                Floats squashed = tangent(load(memory + (row + r) * C + p * WIDTH));
                if (t) old = load(memory + (before + r) * C + p * WIDTH);
                float *carried = d_memory + r * C + p * WIDTH;
                if (r < n_after) {
                    of_output = load(d_hidden + r * C + p * WIDTH);
                    of_state = load(carried);
                }
                int64_t sentence = of->order[begin + r], length = of->lengths[begin + r];
                int64_t place = d ? length - 1 - t : t;
                if (of->d_outputs && n_cells > 0)
                    of_output += load_some(
                        of->d_outputs + ((sentence * of->longest + place) * 2 + d) * H + p * WIDTH, n_cells);
                if (of->d_states && n_cells > 0 && t == length - 1)
                    of_output += load_some(of->d_states + (sentence * 2 + d) * H + p * WIDTH, n_cells);
                Floats one = all(1.0f);
                of_state += of_output * out * (one - squashed * squashed);
                store(carried, of_state * forget);
                Floats gradients[4] = {
                    of_state * candidate * in * (one - in),
                    of_state * old * forget * (one - forget),
                    of_state * in * (one - candidate * candidate),
                    of_output * squashed * out * (one - out),
                };
                Operand *to = d_gates + (p * N + row + r) * PANEL;
#if HALF
                NAME(store_panel)(to, gradients);
#else
                for (int gate = 0; gate < 4; gate++) store(to + gate * WIDTH, gradients[gate]);
#endif
            }
        }
        n_after = n;
    }
}

/* Operands of the weights' gradients: the hidden states before the rows that have one, and pairs of tokens. */
static TARGET void NAME(lay_out_states)(const Lstm *of, int64_t task) {
    int64_t C = of->cells, N = of->n_tokens, stride = stride_of(of);
    if (task < 2) {
        const Operand *hidden = (const Operand *)of->hidden_rows + task * N * C;
        Operand *before = (Operand *)of->before + task * (N + 1) * (C + WIDTH);
        int64_t m = 0;
        for (int64_t t = 1; t < of->n_steps; t++)
            for (int64_t r = 0; r < of->counts[t]; r++, m++) {
                const Operand *from = hidden + (of->offsets[t - 1] + r) * C;
                if (task == 0) of->rows_after[m] = PANEL * (int32_t)(of->offsets[t] + r);
                if (HALF) {
                    Operand *to = before + m / 2 * 2 * (C + WIDTH) + m % 2;
                    for (int64_t k = 0; k < C; k++) to[2 * k] = from[k];
                } else
                    memcpy(before + m * (C + WIDTH), from, C * sizeof(Operand));
            }
        if (HALF && m % 2)
            for (int64_t k = 0; k < C; k++) before[m / 2 * 2 * (C + WIDTH) + 2 * k + 1] = 0;
        return;
    }
    Group group = group_of(of, task - 2);
    for (int64_t t = 0; t < group.n; t += 2) {
        const Operand *one = (const Operand *)of->inputs + (group.first + t) * stride;
        const Operand *other = t + 1 < group.n ? one + stride : 0;
        uint32_t *to = (uint32_t *)of->pairs + ((group.first + group.rank) / 2 + t / 2) * stride;
        for (int64_t k = 0; k < group.n_kept; k++)
            to[k] = (uint32_t)one[k] | (uint32_t)(other ? other[k] : 0) << 16;
    }
}

/* The gradients of the weights and biases of a panel. */
static TARGET void NAME(weights_gradient)(const Lstm *of, int64_t task) {
    int64_t n_panels = of->cells / WIDTH, d = task / n_panels, p = task % n_panels, C = of->cells, D = of->dim;
    int64_t N = of->n_tokens, H = of->hidden, stride = stride_of(of), n_cells = least(WIDTH, H - p * WIDTH);
    if (n_cells <= 0) return;
    const Operand *d_gates = (const Operand *)of->d_gates + task * N * PANEL;
    float *sums = of->d_packed + task * (D > C ? D : C) * PANEL;
    memset(sums, 0, C * PANEL * sizeof(float));
    NAME(outer_product)(sums, of->iota, C, (const Operand *)of->before + d * (N + 1) * (C + WIDTH), C + WIDTH,
                        N - of->n_sentences, d_gates, of->rows_after);
    for (int64_t gate = 0; gate < 4; gate++)
        for (int64_t cell = 0; cell < n_cells; cell++) {
            float *to = of->d_w_hh[d] + (gate * H + p * WIDTH + cell) * H;
            for (int64_t k = 0; k < H; k++) to[k] = sums[k * PANEL + gate * WIDTH + cell];
        }
    memset(sums, 0, D * PANEL * sizeof(float));
    for (int64_t i = 0; i < n_groups(of); i++) {
        Group group = group_of(of, i);
        const Operand *a = (const Operand *)of->inputs + group.first * stride;
        if (HALF) a = (const Operand *)of->pairs + (group.first + group.rank) / 2 * 2 * stride;
        NAME(outer_product)(sums, group.kept, group.n_kept, a, stride, group.n, d_gates,
                            of->rows + d * (N + 1) + group.first);
    }
    float bias[PANEL] = {0};
    for (int64_t row = 0; row < N; row++)
        for (int64_t place = 0; place < PANEL; place++) {
#if HALF
            uint32_t bits = (uint32_t)d_gates[row * PANEL + place] << 16;
            float value;
            memcpy(&value, &bits, sizeof value);
#else
            float value = d_gates[row * PANEL + place];
#endif
            bias[place] += value;
        }
    for (int64_t place = 0; place < PANEL; place++) {
        int64_t column = HALF ? interleaved(place) : place, cell = column % WIDTH;
        if (cell < n_cells) of->d_bias[d][column / WIDTH * H + p * WIDTH + cell] = bias[place];
    }
    for (int64_t gate = 0; gate < 4; gate++)
        for (int64_t cell = 0; cell < n_cells; cell++) {
            float *to = of->d_w_ih[d] + (gate * H + p * WIDTH + cell) * D;
            for (int64_t k = 0; k < D; k++) to[k] = sums[k * PANEL + gate * WIDTH + cell];
        }
}

/* The gradient of 32 columns of the features. */
static TARGET void NAME(features_gradient)(const Lstm *of, int64_t task) {
    int64_t C = of->cells, D = of->dim, N = of->n_tokens, size = 4 * C * 32, first = task * 32, n = least(32, D - first);
    float sums[MOST * 32];
    for (int64_t rank = 0; rank < of->n_sentences; rank++) {
        int64_t sentence = of->order[rank], length = of->lengths[rank];
        const float *factors = of->factors ? of->factors + sentence * D + first : 0;
        float *to = of->d_features + sentence * of->longest * D + first;
        for (int64_t t = 0; t < length; t += MOST) {
            int64_t n_rows = least(MOST, length - t), m = of->firsts[rank] + t;
            memset(sums, 0, sizeof sums);
            for (int64_t d = 0; d < 2; d++)
                NAME(rows_product)(n_rows, 2, 0, 2, sums, 0, 32, 0, (const Operand *)of->d_gates + d * C * 4 * N,
                                   of->rows + d * (N + 1) + m, 0, C / WIDTH, PANEL, N * PANEL,
                                   (const Operand *)of->packed_in + (2 * task + d) * size, 32, 0);
            for (int64_t r = 0; r < n_rows; r++)
                for (int64_t i = 0; i < n; i++) {
                    float value = sums[r * 32 + i];
                    if (factors) value *= factors[i];
                    if (of->scale) value *= of->scale[first + i];
                    to[(t + r) * D + i] = value;
                }
        }
        for (int64_t t = length; t < of->longest; t++) memset(to + t * D, 0, n * sizeof(float));
    }
}

static TARGET void NAME(backward)(const Lstm *of) {
    int64_t n_back = 2 * of->cells / 32, n_in = of->d_features ? (of->dim + 31) / 32 : 0;
    for (int64_t k = 0; k < of->cells; k++) of->iota[k] = (int32_t)(PANEL * k);
    parallel(of, NAME(lay_out_back), n_back + 2 * n_in);
    parallel(of, NAME(walk_back), 2 * n_shares(of));
    parallel(of, NAME(lay_out_states), 2 + (HALF ? n_groups(of) : 0));
    parallel(of, NAME(weights_gradient), 2 * of->cells / WIDTH);
    if (n_in) parallel(of, NAME(features_gradient), n_in);
}

#undef load
#undef store
#undef load_some
#undef store_some
#undef all
#undef chosen
#undef exponential
#undef magnitude
#undef with_sign_of
#undef sigmoid
#undef tangent
#undef Operand
#undef MORE_CASES
#undef BY_ROWS
#undef SUFFIX
#undef TARGET
#undef HALF
#undef VECTORS
#undef MOST
