/* The work of lstm.c for one instruction set and one type of products; included once for each.
 *
 * SUFFIX ends its names, TARGET is the attribute of its functions, HALF says whether products are of bfloat16,
 * VECTORS of LANES columns and MOST rows have their sums in registers.
 */

#if HALF
typedef uint16_t NAME(Operand);
#else
typedef float NAME(Operand);
#endif
#define Operand NAME(Operand)

#include "lstm_vectors.h"
#include "lstm_products.h"

/* Vectors of a sentence: standardised, dropped columns left out. Its places among the rows. */
static TARGET void NAME(lay_out_sentence)(const Lstm *of, int64_t rank) {
    int64_t stride = stride_of(of), dim = of->dim, length = of->lengths[rank], sentence = of->order[rank];
    const float *factors = of->factors ? of->factors + sentence * dim : 0;
    int64_t n_kept = of->n_kept[factors ? rank : 0];
    for (int64_t t = 0; t < length; t++) {
        int64_t m = of->firsts[rank] + t;
        const float *from = of->features + (sentence * of->longest + t) * dim;
        Operand *to = (Operand *)of->inputs + m * stride;
#if LANES == 16
        int64_t n = 0;
        for (int64_t k = 0; k < dim; k += WIDTH) {
            Floats values = load_some(from + k, dim - k);
            __mmask16 mask = dim - k < WIDTH ? (__mmask16)((1u << (dim - k)) - 1) : 0xffff;
            if (of->mean) values = (values - load_some(of->mean + k, dim - k)) * load_some(of->scale + k, dim - k);
            if (factors) {
                Floats kept_or_not = load_some(factors + k, dim - k);
                mask &= _mm512_cmp_ps_mask((__m512)kept_or_not, _mm512_setzero_ps(), _CMP_NEQ_UQ);
                values = (Floats)_mm512_maskz_compress_ps(mask, (__m512)(values * kept_or_not));
            }
#if HALF
            _mm256_storeu_si256((__m256i *)(to + n), (__m256i)_mm512_cvtneps_pbh((__m512)values));
#else
            store(to + n, values);
#endif
            n += __builtin_popcount(mask);
        }
#else
        const int32_t *kept = of->kept + rank * stride;
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
#endif
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

/* Sixteen columns of a panel's weights, n of which are there: of each its gates. */
INLINE TARGET void NAME(load_columns)(const Lstm *of, const float *weights, int64_t n_columns, int64_t p, int64_t n,
                                      Floats columns[4][WIDTH]) {
    for (int64_t gate = 0; gate < 4; gate++) {
        for (int64_t i = 0; i < WIDTH; i++) {
            int64_t cell = p * WIDTH + i;
            columns[gate][i] = cell < of->hidden && n > 0
                                   ? load_some(weights + (gate * of->hidden + cell) * n_columns, n)
                                   : all(0.0f);
        }
        NAME(transpose)(columns[gate]);
    }
}

/* The weights of a panel, transposed: input's as rows, recurrent ones as rows or pairs of rows. */
static TARGET void NAME(lay_out_weights)(const Lstm *of, int64_t task) {
    int64_t n_panels = of->cells / WIDTH, d = task / n_panels, p = task % n_panels, H = of->hidden;
    Operand *input = (Operand *)of->packed_ih + task * of->dim * PANEL;
    Operand *recurrent = (Operand *)of->packed_hh + task * of->cells * PANEL;
    Floats columns[4][WIDTH];
    for (int64_t first = 0; first < of->dim; first += WIDTH) {
        NAME(load_columns)(of, of->w_ih[d] + first, of->dim, p, of->dim - first, columns);
        for (int64_t k = first; k < least(first + WIDTH, of->dim); k++) {
#if HALF
            Floats gates[4] = {columns[0][k - first], columns[1][k - first], columns[2][k - first],
                               columns[3][k - first]};
            NAME(store_panel)(input + k * PANEL, gates);
#else
            for (int gate = 0; gate < 4; gate++) store(input + k * PANEL + gate * WIDTH, columns[gate][k - first]);
#endif
        }
    }
    for (int64_t first = 0; first < of->cells; first += WIDTH) {
        NAME(load_columns)(of, of->w_hh[d] + first, H, p, H - first, columns);
        for (int gate = 0; gate < 4; gate++)
            for (int64_t k = first; k < first + WIDTH; k++) {
#if HALF
                __m512i half = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)columns[gate][k - first]));
                Operand *to = recurrent + k / 2 * 2 * PANEL + 2 * gate * WIDTH;
                if (k % 2) half = _mm512_or_si512(_mm512_slli_epi32(half, 16), _mm512_loadu_si512(to));
                _mm512_storeu_si512(to, half);
#else
                store(recurrent + k * PANEL + gate * WIDTH, columns[gate][k - first]);
#endif
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
    int64_t part = task % n_parts(of);
    task /= n_parts(of);
    int64_t n_panels = of->cells / WIDTH, d = task / n_panels, p = task % n_panels, hidden = of->hidden;
    float bias[PANEL];
    for (int64_t column = 0; column < PANEL; column++) {
        int64_t cell = p * WIDTH + column % WIDTH, at = column / WIDTH * hidden + cell;
        bias[column] = cell < hidden ? of->b_ih[d][at] + of->b_hh[d][at] : 0;
    }
    const int32_t *rows = of->rows + d * (of->n_tokens + 1);
    const Operand *weights = (const Operand *)of->packed_ih + task * of->dim * PANEL;
    for (int64_t i = part; i < n_groups(of); i += n_parts(of)) {
        Group group = group_of(of, i);
        NAME(rows_product)(group.n, PANEL, 1, 1, of->gates + task * of->n_tokens * PANEL, rows + group.first, 0, bias,
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
                NAME(rows_product)(n, PANEL, 0, 2, gates, 0, PANEL, 0, hidden + before * C, 0, C, 1, C, 0,
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
    parallel(of, NAME(input_product), n_weights * n_parts(of));
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
            NAME(rows_product)(n_after, 32, 0, 0, d_hidden + p * 32, 0, C, 0, d_gates + after * PANEL, 0, PANEL,
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
        uint32_t *to = (uint32_t *)of->pairs + ((group.first + group.n_odd) / 2 + t / 2) * stride;
        for (int64_t k = 0; k < group.n_kept; k++)
            to[k] = (uint32_t)one[k] | (uint32_t)(other ? other[k] : 0) << 16;
    }
}

/* Sums of some columns of a panel as rows of a weight. */
static TARGET void NAME(store_weights)(const Lstm *of, const float *sums, int64_t p, float *weights,
                                       int64_t n_columns, int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += WIDTH)
        for (int64_t gate = 0; gate < 4; gate++) {
            Floats block[WIDTH];
            for (int64_t i = 0; i < WIDTH; i++)
                block[i] = first + i < end ? load(sums + (first + i) * PANEL + gate * WIDTH) : all(0.0f);
            NAME(transpose)(block);
            for (int64_t i = 0; i < least(WIDTH, of->hidden - p * WIDTH); i++)
                store_some(weights + (gate * of->hidden + p * WIDTH + i) * n_columns + first, block[i], end - first);
        }
}

/* The gradients of a part of the weights of a panel, and those of its biases. */
static TARGET void NAME(weights_gradient)(const Lstm *of, int64_t task) {
    int64_t part = task % n_parts(of);
    task /= n_parts(of);
    int64_t n_panels = of->cells / WIDTH, d = task / n_panels, p = task % n_panels, C = of->cells, D = of->dim;
    int64_t N = of->n_tokens, H = of->hidden, stride = stride_of(of), n_cells = least(WIDTH, H - p * WIDTH);
    if (n_cells <= 0) return;
    const Operand *d_gates = (const Operand *)of->d_gates + task * N * PANEL;
    float *of_input = of->d_packed + task * (D + C) * PANEL, *of_states = of_input + D * PANEL;
    int64_t begin = part_begin(of, part, H), end = part_begin(of, part + 1, H);
    memset(of_states + begin * PANEL, 0, (end - begin) * PANEL * sizeof(float));
    NAME(outer_product)(of_states, of->iota + begin, end - begin,
                        (const Operand *)of->before + d * (N + 1) * (C + WIDTH) + begin * (HALF ? 2 : 1), C + WIDTH,
                        N - of->n_sentences, d_gates, of->rows_after);
    NAME(store_weights)(of, of_states, p, of->d_w_hh[d], H, begin, end);
    begin = part_begin(of, part, D), end = part_begin(of, part + 1, D);
    memset(of_input + begin * PANEL, 0, (end - begin) * PANEL * sizeof(float));
    for (int64_t i = 0; i < n_groups(of); i++) {
        Group group = group_of(of, i);
        int64_t first = 0, last = group.n_kept;
        while (n_parts(of) > 1 && first < last && group.kept[first] < PANEL * begin) first++;
        while (n_parts(of) > 1 && last > first && group.kept[last - 1] >= PANEL * end) last--;
        const Operand *a = (const Operand *)of->inputs + group.first * stride;
        if (HALF) a = (const Operand *)of->pairs + (group.first + group.n_odd) / 2 * 2 * stride;
        NAME(outer_product)(of_input, group.kept + first, last - first, a + first * (HALF ? 2 : 1), stride, group.n,
                            d_gates, of->rows + d * (N + 1) + group.first);
    }
    NAME(store_weights)(of, of_input, p, of->d_w_ih[d], D, begin, end);
    if (part) return;
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
                NAME(rows_product)(n_rows, 32, 0, 2, sums, 0, 32, 0, (const Operand *)of->d_gates + d * C * 4 * N,
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
    parallel(of, NAME(weights_gradient), 2 * of->cells / WIDTH * n_parts(of));
    if (n_in) parallel(of, NAME(features_gradient), n_in);
}

#undef Operand
#undef MORE_CASES
#undef BY_ROWS
#undef SUFFIX
#undef TARGET
#undef HALF
#undef VECTORS
#undef LANES
#undef Vector
#undef LOAD
#undef STORE
#undef MOST
