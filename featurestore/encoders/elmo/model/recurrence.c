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

#include <immintrin.h>

#include "vector_arithmetic.h"

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

#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LENGTH 8
#include "recurrence_steps.h"

#define SUFFIX avx512
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define LENGTH 16
#include "recurrence_steps.h"

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
        walk_avx512(of, &team, n_rows, n_steps, shares, hidden, memory, outputs, out);
    else
        walk_avx2(of, &team, n_rows, n_steps, shares, hidden, memory, outputs, out);
    return 0;
}

#else

int featurestore_recurrence_supported(void) { return 0; }

#endif
