/* A step of recurrence.c for one instruction set; included once for each.
 *
 * SUFFIX ends its names, TARGET is the attribute of its functions, LENGTH is how many floats a register has.
 */

#include "vector_arithmetic.h"

#define load NAME(load)
#define rounded NAME(rounded)
#define total NAME(total)
#define clipped NAME(clipped)
#define four_products NAME(four_products)
#define cells NAME(cells)
#define step NAME(step)
#define walk_type NAME(walk_type)
#define PARTS (WIDTH / LENGTH)

INLINE TARGET Floats load(const char *from, int64_t index, int type) {
    Floats values;
    if (type == FLOAT32) {
        memcpy(&values, from + 4 * index, sizeof values);
        return values;
    }
    typedef uint16_t Halves __attribute__((vector_size(2 * LENGTH)));
    typedef uint32_t Words __attribute__((vector_size(4 * LENGTH)));
    Halves halves;
    memcpy(&halves, from + 2 * index, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

/* To bfloat16 and back: to the nearest, ties to even. */
INLINE TARGET float rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1);
    bits &= 0xffff0000u;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The sum of sixteen floats, added pairwise. */
INLINE TARGET float total(const Floats sums[PARTS]) {
#if LENGTH == 16
    __m256 eight = _mm512_castps512_ps256((__m512)sums[0]) + _mm512_extractf32x8_ps((__m512)sums[0], 1);
#else
    __m256 eight = (__m256)sums[0] + (__m256)sums[1];
#endif
    __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

INLINE TARGET Floats clipped(Floats values, float limit) {
    values = chosen(values > all(limit), all(limit), values);
    return chosen(values < all(-limit), all(-limit), values);
}

/* Products of four rows of weights that follow each other with each input. What need not be kept in the cache until
 * the next step is fetched past it. */
INLINE TARGET void four_products(const char *weights, int64_t n, int type, int keep, const float *inputs,
                                 int64_t stride, int n_rows, float out[4][MOST_ROWS]) {
    Floats sums[4][MOST_ROWS][PARTS] = {{{{0}}}};
    int64_t size = type == FLOAT32 ? 4 : 2;
    for (int64_t k = 0; k < n; k += WIDTH) {
        for (int q = 0; q < 4; q++)
            if (keep)
                __builtin_prefetch(weights + size * (q * n + k + 4 * n));
            else
                __builtin_prefetch(weights + size * (q * n + k + 4 * n), 0, 0);
        for (int part = 0; part < PARTS; part++) {
            Floats weight[4];
            for (int q = 0; q < 4; q++) weight[q] = load(weights, q * n + k + part * LENGTH, type);
            for (int r = 0; r < n_rows; r++) {
                Floats input = load((const char *)(inputs + r * stride), k + part * LENGTH, FLOAT32);
                for (int q = 0; q < 4; q++) sums[q][r][part] += weight[q] * input;
            }
        }
    }
    for (int q = 0; q < 4; q++)
        for (int r = 0; r < n_rows; r++) out[q][r] = total(sums[q][r]);
}

/* A step of sixteen cells: their gates, their memory, what they put out. n of the sixteen are there. */
INLINE TARGET void cells(const Direction *of, int64_t first, int64_t n, int type, int keep, int n_rows,
                         const char *const shares[], const float *hidden, float *memory, float *outputs) {
    int64_t k = (of->dim + WIDTH - 1) / WIDTH * WIDTH, c = (of->n_cells + WIDTH - 1) / WIDTH * WIDTH;
    int64_t size = type == FLOAT32 ? 4 : 2;
    float products[MOST_ROWS][4][WIDTH];
    memset(products, 0, sizeof products);
    for (int64_t cell = 0; cell < n; cell++) {
        float out[4][MOST_ROWS];
        four_products(of->gates + (first + cell) * 4 * k * size, k, type, keep, hidden, k, n_rows, out);
        for (int q = 0; q < 4; q++)
            for (int r = 0; r < n_rows; r++) products[r][q][cell] = out[q][r];
    }
    for (int r = 0; r < n_rows; r++) {
        for (int q = 0; q < 4; q++)
            for (int64_t cell = 0; cell < n; cell++) {
                int64_t at = q * of->n_cells + first + cell;
                float share;
                if (type == FLOAT32) {
                    memcpy(&share, shares[r] + 4 * at, sizeof share);
                } else {
                    uint32_t bits = 0;
                    memcpy((char *)&bits + 2, shares[r] + 2 * at, 2);
                    memcpy(&share, &bits, sizeof share);
                }
                share += products[r][q][cell];
                products[r][q][cell] = type == FLOAT32 ? share : rounded(share);
            }
        for (int part = 0; part < PARTS; part++) {
            Floats gates[4], state;
            float *remembered = memory + r * c + first + part * LENGTH;
            for (int q = 0; q < 4; q++) memcpy(&gates[q], products[r][q] + part * LENGTH, sizeof gates[q]);
            memcpy(&state, remembered, sizeof state);
            state = state * sigmoid(gates[1]) + sigmoid(gates[0]) * tangent(gates[3]);
            state = clipped(state, of->cell_clip);
            memcpy(remembered, &state, sizeof state);
            Floats output = tangent(state) * sigmoid(gates[2]);
            if (type == BFLOAT16)
                for (int i = 0; i < LENGTH; i++) output[i] = rounded(output[i]);
            memcpy(outputs + r * c + first + part * LENGTH, &output, sizeof output);
        }
    }
}

INLINE TARGET void step(const Direction *of, const Team *team, int type, int n_rows, const char *const shares[],
                 float *hidden, float *memory, float *outputs, char *const out[]) {
    int64_t k = (of->dim + WIDTH - 1) / WIDTH * WIDTH, c = (of->n_cells + WIDTH - 1) / WIDTH * WIDTH;
    int64_t size = type == FLOAT32 ? 4 : 2;
    int64_t begin = c / WIDTH * team->thread / team->n_threads, end = c / WIDTH * (team->thread + 1) / team->n_threads;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i * WIDTH;
        int64_t n = of->n_cells - first < WIDTH ? of->n_cells - first : WIDTH;
        if (i - begin < (end - begin) * of->kept)
            cells(of, first, n, type, 1, n_rows, shares, hidden, memory, outputs);
        else
            cells(of, first, n, type, 0, n_rows, shares, hidden, memory, outputs);
    }
    meet(team->meeting, team->n_threads);
    begin = k / 4 * team->thread / team->n_threads, end = k / 4 * (team->thread + 1) / team->n_threads;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i * 4;
        float products[4][MOST_ROWS];
        four_products(of->projection + first * c * size, c, type, 1, outputs, c, n_rows, products);
        for (int q = 0; q < 4 && first + q < of->dim; q++)
            for (int r = 0; r < n_rows; r++) {
                float value = type == FLOAT32 ? products[q][r] : rounded(products[q][r]);
                if (value > of->proj_clip) value = of->proj_clip;
                if (value < -of->proj_clip) value = -of->proj_clip;
                if (type == BFLOAT16) value = rounded(value); /* the limit */
                hidden[r * k + first + q] = value;
                memcpy(out[r] + size * (first + q), (char *)&value + (type == FLOAT32 ? 0 : 2), size);
            }
    }
    meet(team->meeting, team->n_threads);
}

INLINE TARGET void walk_type(const Direction *of, const Team *team, int64_t n_rows, const int64_t *n_steps, const char *shares, float *hidden,
                 float *memory, float *outputs, char *out, int type) {
    int64_t size = type == FLOAT32 ? 4 : 2;
    for (int64_t t = 0; n_rows && t < n_steps[0]; t++) {
        while (n_steps[n_rows - 1] <= t) n_rows--;
        const char *share[MOST_ROWS];
        char *to[MOST_ROWS];
        int64_t before = 0;
        for (int64_t r = 0; r < n_rows; before += n_steps[r++]) {
            share[r] = shares + (before + t) * 4 * of->n_cells * size;
            to[r] = out + (before + t) * of->dim * size;
        }
        switch (n_rows) {
        case 1: step(of, team, type, 1, share, hidden, memory, outputs, to); break;
        case 2: step(of, team, type, 2, share, hidden, memory, outputs, to); break;
        case 3: step(of, team, type, 3, share, hidden, memory, outputs, to); break;
        default: step(of, team, type, 4, share, hidden, memory, outputs, to);
        }
    }
}
static TARGET __attribute__((noinline)) void NAME(walk)(const Direction *of, const Team *team, int64_t n_rows,
                                                        const int64_t *n_steps, const char *shares, float *hidden,
                                                        float *memory, float *outputs, char *out) {
    if (of->type == FLOAT32)
        walk_type(of, team, n_rows, n_steps, shares, hidden, memory, outputs, out, FLOAT32);
    else
        walk_type(of, team, n_rows, n_steps, shares, hidden, memory, outputs, out, BFLOAT16);
}

#undef SUFFIX
#undef LENGTH
#undef TARGET
