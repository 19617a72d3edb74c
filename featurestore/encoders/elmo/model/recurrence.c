/* The recurrence of an LSTM with projection over a few long sentences, step after step in one call.
 *
 * Read by featurestore/encoders/elmo/model/long_sentences.py through ctypes: no Python header is needed to compile
 * it. A step over one row is bound by reading the weights, and by the calls around it; so the weights are laid out
 * in the order in which they are read, and nothing else is read or called. Written with the vector types of GCC
 * and Clang for x86 processors with AVX2 and FMA (since 2013) and, where it is there, AVX-512; elsewhere
 * featurestore_recurrence_supported() says 0 and torch does the work.
 *
 * A row's sums are the same to the bit whatever rows come with it and whichever of the two is used: sixteen partial
 * sums, added pairwise.
 */
#include <sched.h>
#include <stdint.h>
#include <string.h>

#define VERSION 1
#define MOST_ROWS 4

enum { FLOAT32 = 0, BFLOAT16 = 1 };

int featurestore_recurrence_version(void) { return VERSION; }

#if defined(__x86_64__) && defined(__GNUC__)

typedef float Floats __attribute__((vector_size(64)));
typedef float EightFloats __attribute__((vector_size(32)));
typedef float FourFloats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))
#define WIDTH 16

/* One direction of one layer. K is the projection's length, C the number of cells; k and c are these rounded up to
 * whole vectors, the rest zeros. */
typedef struct {
    const char *gates;      /* (C, 4, k): recurrent weights of each cell's input, forget, output gate and candidate */
    const char *projection; /* (k, c) */
    int64_t n_cells, dim;
    int64_t type;     /* of the weights, of what they multiply and of the results */
    float cell_clip;  /* infinity where there is none */
    float proj_clip;
    float kept; /* share of the gates' weights, from 0 to 1, that the processor's cache has room for */
} Direction;

INLINE Floats load(const char *from, int64_t index, int type) {
    Floats values;
    if (type == FLOAT32) {
        memcpy(&values, from + 4 * index, sizeof values);
        return values;
    }
    Halves halves;
    memcpy(&halves, from + 2 * index, sizeof halves);
    Words words = __builtin_convertvector(halves, Words) << 16;
    memcpy(&values, &words, sizeof values);
    return values;
}

/* To bfloat16 and back: to the nearest, ties to even. */
INLINE float rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1);
    bits &= 0xffff0000u;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE float total(Floats sums) {
    EightFloats low, high;
    memcpy(&low, &sums, sizeof low);
    memcpy(&high, (char *)&sums + sizeof low, sizeof high);
    low += high;
    FourFloats a, b;
    memcpy(&a, &low, sizeof a);
    memcpy(&b, (char *)&low + sizeof a, sizeof b);
    a += b;
    return (a[0] + a[2]) + (a[1] + a[3]);
}

INLINE Floats all(float value) { return value - (Floats){0}; }

INLINE Floats chosen(Ints where, Floats yes, Floats no) { return (Floats)(((Ints)yes & where) | ((Ints)no & ~where)); }

INLINE Floats clipped(Floats values, float limit) {
    values = chosen(values > all(limit), all(limit), values);
    return chosen(values < all(-limit), all(-limit), values);
}

/* exp for arguments of at most 0: x = n ln 2 + r, a polynomial in r, n added to the exponent. After S. Moshier's
 * Cephes library, expf: one unit in the last place. */
INLINE Floats exponential(Floats x) {
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

INLINE Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

INLINE Floats with_sign_of(Floats values, Floats signs) {
    return (Floats)((Ints)values | ((Ints)signs & (int32_t)0x80000000));
}

INLINE Floats sigmoid(Floats x) {
    Floats small = exponential(-magnitude(x)); /* of the negative side, which cannot overflow */
    Floats of_negative = small / (all(1.0f) + small), of_positive = all(1.0f) / (all(1.0f) + small);
    Floats result = chosen(x < all(0.0f), of_negative, of_positive);
    return chosen(x != x, x, result);
}

INLINE Floats tangent(Floats x) { /* hyperbolic; Cephes' polynomial below 0.625 */
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

/* Products of four rows of weights that follow each other with each input. What need not be kept in the cache until
 * the next step is fetched past it. */
INLINE void four_products(const char *weights, int64_t n, int type, int keep, const float *inputs, int64_t stride,
                          int n_rows, float out[4][MOST_ROWS]) {
    Floats sums[4][MOST_ROWS] = {{{0}}};
    int64_t size = type == FLOAT32 ? 4 : 2;
    for (int64_t k = 0; k < n; k += WIDTH) {
        Floats weight[4];
        for (int q = 0; q < 4; q++) {
            weight[q] = load(weights, q * n + k, type);
            if (keep)
                __builtin_prefetch(weights + size * (q * n + k + 4 * n));
            else
                __builtin_prefetch(weights + size * (q * n + k + 4 * n), 0, 0);
        }
        for (int r = 0; r < n_rows; r++) {
            Floats input = load((const char *)(inputs + r * stride), k, FLOAT32);
            for (int q = 0; q < 4; q++) sums[q][r] += weight[q] * input;
        }
    }
    for (int q = 0; q < 4; q++)
        for (int r = 0; r < n_rows; r++) out[q][r] = total(sums[q][r]);
}

/* A step of sixteen cells: their gates, their memory, what they put out. n of the sixteen are there. */
INLINE void cells(const Direction *of, int64_t first, int64_t n, int type, int keep, int n_rows,
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
        Floats gates[4];
        for (int q = 0; q < 4; q++) {
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
            memcpy(&gates[q], products[r][q], sizeof gates[q]);
        }
        Floats state;
        memcpy(&state, memory + r * c + first, sizeof state);
        state = state * sigmoid(gates[1]) + sigmoid(gates[0]) * tangent(gates[3]);
        state = clipped(state, of->cell_clip);
        memcpy(memory + r * c + first, &state, sizeof state);
        Floats output = tangent(state) * sigmoid(gates[2]);
        if (type == BFLOAT16)
            for (int i = 0; i < WIDTH; i++) output[i] = rounded(output[i]);
        memcpy(outputs + r * c + first, &output, sizeof output);
    }
}

/* Threads that walk together: each has its part of the cells and of the projection, and waits for the others. */
typedef struct {
    int64_t n_arrived, n_met;
} Meeting;

static void meet(Meeting *meeting, int64_t n_threads) {
    if (n_threads == 1) return;
    int64_t before = __atomic_load_n(&meeting->n_met, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&meeting->n_arrived, 1, __ATOMIC_ACQ_REL) == n_threads) {
        __atomic_store_n(&meeting->n_arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&meeting->n_met, before + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int64_t n = 0; __atomic_load_n(&meeting->n_met, __ATOMIC_ACQUIRE) == before; n++)
        if (n < 2000)
            __builtin_ia32_pause();
        else
            sched_yield(); /* another program has the core that the last one needs */
}

typedef struct {
    int64_t n_threads, thread;
    Meeting *meeting;
} Team;

INLINE void step(const Direction *of, const Team *team, int type, int n_rows, const char *const shares[],
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

INLINE void walk(const Direction *of, const Team *team, int64_t n_rows, const int64_t *n_steps, const char *shares, float *hidden,
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

#define WALK(name, instructions)                                                                                   \
    __attribute__((target(instructions), noinline)) static void name(                                              \
        const Direction *of, const Team *team, int64_t n_rows, const int64_t *n_steps, const char *shares,         \
        float *hidden, float *memory, float *outputs, char *out) {                                                 \
        if (of->type == FLOAT32)                                                                                   \
            walk(of, team, n_rows, n_steps, shares, hidden, memory, outputs, out, FLOAT32);                              \
        else                                                                                                       \
            walk(of, team, n_rows, n_steps, shares, hidden, memory, outputs, out, BFLOAT16);                             \
    }

WALK(walk_by_avx2, "avx2,fma")
WALK(walk_by_avx512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")

int featurestore_recurrence_supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

/* Run a direction over the next steps of a few sentences.
 *
 * n_rows, n_steps: at most four sentences, and of each how many steps are taken here, the most first.
 * shares: (sum of n_steps, 4 * C) of the direction's type, sentence by sentence in the order walked: what the inputs
 *     and the bias add to the input, forget and output gate and the candidate.
 * hidden, memory: (n_rows, k), (n_rows, c) float32: the states before, then after. hidden holds rounded values.
 * outputs: (n_rows, c) float32, zeros to begin with: scratch memory.
 * out: (sum of n_steps, K) of the direction's type, as shares are laid out.
 * n_threads, thread: how many threads make this same call, and which of them this is.
 * meeting: two zeros that they share.
 *
 * Returns 0, or 1 if there are too many rows or the steps are not in order; nothing is written then.
 */
int featurestore_recurrence(const Direction *of, int64_t n_rows, const int64_t *n_steps, const char *shares,
                            float *hidden, float *memory, float *outputs, char *out, int64_t n_threads,
                            int64_t thread, int64_t *meeting, int narrow) {
    Team team = {n_threads, thread, (Meeting *)meeting};
    if (n_rows < 1 || n_rows > MOST_ROWS) return 1;
    for (int64_t r = 1; r < n_rows; r++)
        if (n_steps[r] > n_steps[r - 1]) return 1;
    if (n_steps[n_rows - 1] < 0 || n_threads < 1 || thread < 0 || thread >= n_threads) return 1;
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (wide && !narrow)
        walk_by_avx512(of, &team, n_rows, n_steps, shares, hidden, memory, outputs, out);
    else
        walk_by_avx2(of, &team, n_rows, n_steps, shares, hidden, memory, outputs, out);
    return 0;
}

#else

int featurestore_recurrence_supported(void) { return 0; }

#endif
