/* A bidirectional LSTM layer over a batch of sentences: forward, and all gradients, for training light models.
 *
 * Read by featurestore/models/recurrent/compiled.py through ctypes: no Python header is needed to compile it.
 * Written with the vector types of GCC and Clang for x86 processors with AVX2 and FMA (since 2013) and, where they
 * are there, AVX-512 and its bfloat16 products; elsewhere featurestore_lstm_supported() says 0 and torch does the
 * work. Threads are those of torch: GOMP_parallel of the OpenMP library that torch has loaded.
 *
 * Locked dropout sets the same columns of a sentence's vectors to zero in all of its tokens. So the vectors are laid
 * out without these columns, and products with them skip the rows of the weights: what is left out would only have
 * added zeros, which is a third to a half of all multiplications of a training.
 *
 * Every sum has one order, whatever sentences come together and however many threads there are.
 */
#include <stdint.h>
#include <string.h>

#define VERSION 1

enum { FLOAT32 = 0, BFLOAT16 = 1 };

int featurestore_lstm_version(void) { return VERSION; }

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include "vector_arithmetic.h"

extern void GOMP_parallel(void (*work)(void *), void *data, unsigned n_threads, unsigned flags) __attribute__((weak));

/* D is the length of a vector, H the number of cells of a direction, C the same rounded up to CELLS; the weights of
 * the cells too many are zeros. A panel is the four gates of sixteen cells: 64 columns, P = C / 16 panels. Tokens lie
 * in two orders: m counts them sentence by sentence, the longest sentence first ("rank" 0); rows are those of a
 * direction's steps: all sentences' first tokens in the direction's order, in that of the ranks, then all second ones.
 */
typedef struct {
    int64_t n_sentences, n_tokens, n_steps, longest, dim, hidden, cells, n_threads;
    int64_t type;   /* of products: FLOAT32 or BFLOAT16 */
    int64_t narrow; /* leave out the widest instructions */
    const int64_t *order;   /* (n_sentences,) which sentence has a rank */
    const int64_t *lengths; /* (n_sentences,) by rank */
    const int64_t *firsts;  /* (n_sentences + 1,) first m of a rank */
    const int64_t *counts;  /* (n_steps,) sentences that have a step */
    const int64_t *offsets; /* (n_steps,) first row of a step */
    const float *features;  /* (n_sentences, longest, D) */
    const float *mean;      /* (D,) or NULL */
    const float *scale;     /* (D,) or NULL */
    const float *factors;   /* (n_sentences, D) of dropout, or NULL */
    const float *w_ih[2], *w_hh[2], *b_ih[2], *b_hh[2]; /* as torch.nn.LSTM has them */
    float *outputs; /* (n_sentences, longest, 2 * H) */
    float *states;  /* (n_sentences, 2 * H) */
    /* Kept for the gradients; operands are float or bfloat16. */
    void *inputs;      /* (n_tokens, stride) operands: by m, without the columns that are dropped */
    int32_t *kept;     /* (n_sentences, stride) 64 times the columns that are not; of rank 0 only, without dropout */
    int64_t *n_kept;   /* (n_sentences,) */
    int32_t *rows;     /* (2, n_tokens + 1) 64 times the row of each m; a row of 0 follows */
    float *gates;      /* (2, P, n_tokens, 4, 16) */
    float *memory;     /* (2, n_tokens, C) */
    void *hidden_rows; /* (2, n_tokens, C) operands */
    void *packed_ih;   /* (2, P, D, 64) operands */
    void *packed_hh;   /* (2, P, C, 64) operands */
    /* Gradients: given, of the weights, of the features (or NULL), and scratch memory. */
    const float *d_outputs, *d_states; /* or NULL */
    float *d_w_ih[2], *d_w_hh[2], *d_bias[2];
    float *d_features;
    void *d_gates;       /* (2, P, n_tokens, 64) operands */
    float *d_hidden;     /* (2, n_sentences, C) */
    float *d_memory;     /* (2, n_sentences, C) */
    void *packed_back;   /* (2, C / 32, 4 * C, 32) operands */
    void *packed_in;     /* (D / 32 rounded up, 2, 4 * C, 32) operands; with d_features only */
    void *before;        /* (2, n_tokens + 1, C + 16) operands: the hidden state before each row after a first one */
    int32_t *rows_after; /* (n_tokens + 1,) 64 times these rows; a row of 0 follows */
    int32_t *iota;       /* (C,) multiples of 64 */
    void *pairs;         /* (n_tokens + n_sentences, stride) operands; with bfloat16 only */
    float *d_packed;     /* (2, P, D + C, 64) */
} Lstm;

typedef float Anywhere __attribute__((vector_size(64), aligned(4), may_alias)); /* sixteen floats in memory */

#define WIDTH 16
#define LENGTH WIDTH
#define PANEL 64
#define GROUP 256 /* most tokens whose products are added before the sum is written */

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Length of a laid out vector: not a multiple of a page, which would put all of them into the same lines of a cache. */
INLINE int64_t stride_of(const Lstm *of) { return (of->dim + WIDTH - 1) / WIDTH * WIDTH + WIDTH; }

/* The column of a panel that stands at a place of a bfloat16 row of which pairs are made later: interleaving the
 * halves of 128 bits of two rows then gives the columns in order. */
INLINE int64_t interleaved(int64_t place) {
    int64_t in_half = place % 32, lane = in_half / 8, within = in_half % 8;
    return place - in_half + lane * 4 + within % 4 + (within < 4 ? 0 : WIDTH);
}

/* Tokens of which products are made together: those of a sentence where columns are dropped, else a few hundred. */
typedef struct {
    int64_t first, n, n_kept, n_odd; /* first m; how many groups before may have an odd number of tokens */
    const int32_t *kept;
} Group;

INLINE int64_t n_groups(const Lstm *of) { return of->factors ? of->n_sentences : (of->n_tokens + GROUP - 1) / GROUP; }

INLINE Group group_of(const Lstm *of, int64_t number) {
    if (of->factors)
        return (Group){of->firsts[number], of->lengths[number], of->n_kept[number], number,
                       of->kept + number * stride_of(of)};
    int64_t first = number * GROUP;
    return (Group){first, least(GROUP, of->n_tokens - first), of->n_kept[0], 0, of->kept};
}

/* Sentences are shared out between threads by ranks, each direction on its own. */
INLINE int64_t n_shares(const Lstm *of) {
    int64_t wanted = (of->n_threads + 1) / 2, most = (of->n_sentences + 3) / 4;
    return wanted < most ? wanted : most;
}

INLINE int64_t share_begin(const Lstm *of, int64_t share) {
    int64_t n = n_shares(of), rank = 0;
    if (share == n) return of->n_sentences;
    while (of->firsts[rank] < of->n_tokens * share / n) rank++;
    return rank;
}

/* Work on a panel is parted further where there are more threads than panels keep busy. */
INLINE int64_t n_parts(const Lstm *of) {
    int64_t n_panels = 2 * of->cells / WIDTH;
    return (2 * of->n_threads + n_panels - 1) / n_panels;
}

/* Of whole vectors of n columns, where a part begins. */
INLINE int64_t part_begin(const Lstm *of, int64_t part, int64_t n) {
    return least((n + WIDTH - 1) / WIDTH * part / n_parts(of) * WIDTH, n);
}

typedef void (*Work)(const Lstm *of, int64_t task);

typedef struct {
    const Lstm *of;
    Work work;
    int64_t n, next;
} Tasks;

static void work_off(void *data) {
    Tasks *tasks = data;
    int64_t task;
    while ((task = __atomic_fetch_add(&tasks->next, 1, __ATOMIC_RELAXED)) < tasks->n) tasks->work(tasks->of, task);
}

static void parallel(const Lstm *of, Work work, int64_t n) {
    Tasks tasks = {of, work, n, 0};
    if (of->n_threads > 1 && n > 1)
        GOMP_parallel(work_off, &tasks, (unsigned)of->n_threads, 0);
    else
        work_off(&tasks);
}

#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma")))
#define HALF 0
#define LANES 8
#define VECTORS 2
#define MOST 6
#include "lstm_steps.h"

#define SUFFIX avx512
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define HALF 0
#define LANES 16
#define VECTORS 2
#define MOST 12
#include "lstm_steps.h"

#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define HAS_BFLOAT16 1
#define SUFFIX bfloat16
#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define HALF 1
#define LANES 16
#define VECTORS 2
#define MOST 12
#include "lstm_steps.h"
#endif

static int wide(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

int featurestore_lstm_supported(void) {
    return GOMP_parallel && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

int featurestore_lstm_multiplies(int64_t type) {
    if (type == FLOAT32) return featurestore_lstm_supported();
#if HAS_BFLOAT16
    if (type == BFLOAT16) return featurestore_lstm_supported() && wide() && __builtin_cpu_supports("avx512bf16");
#endif
    return 0;
}

/* Fill outputs and states. Returns 0, or 1 for a type that is not supported. */
int featurestore_lstm_forward(const Lstm *of) {
    if (!featurestore_lstm_multiplies(of->type)) return 1;
#if HAS_BFLOAT16
    if (of->type == BFLOAT16) forward_bfloat16(of);
#endif
    if (of->type == FLOAT32 && wide() && !of->narrow) forward_avx512(of);
    else if (of->type == FLOAT32) forward_avx2(of);
    return 0;
}

/* Fill the gradients, from what forward has left. Returns as it does. */
int featurestore_lstm_backward(const Lstm *of) {
    if (!featurestore_lstm_multiplies(of->type)) return 1;
#if HAS_BFLOAT16
    if (of->type == BFLOAT16) backward_bfloat16(of);
#endif
    if (of->type == FLOAT32 && wide() && !of->narrow) backward_avx512(of);
    else if (of->type == FLOAT32) backward_avx2(of);
    return 0;
}

#else

int featurestore_lstm_supported(void) { return 0; }

#endif
