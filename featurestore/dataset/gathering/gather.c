/* Sentences out of mapped shards into a batch, checked and decoded on the way, in one call.
 *
 * Read by featurestore/dataset/gathering/compiled.py through ctypes: no Python header is needed to compile it. The
 * instructions are those of x86 processors since 2013 (AVX2, F16C); elsewhere featurestore_supported() says 0
 * and torch does the work. The values are those of torch, bit for bit.
 */
#include <stdint.h>
#include <string.h>

#define VERSION 3

enum { FLOAT32 = 0, FLOAT16 = 1, INT8 = 2 };

/* A shard, as a row of the table that compiled.py keeps. */
typedef struct {
    const char *values;    /* (n_tokens, n_layers, dim); NULL: not there to be read */
    const char *offsets;   /* (n_sentences + 1,) uint64: where each sentence begins */
    uint8_t *verified;     /* (n_sentences,): its checksum need not be compared; NULL: all of them */
    const char *checksums; /* (n_sentences,) uint64; with verified only */
    const char *scales;    /* (n_tokens, n_layers) float32; INT8 only */
    const char *norms;     /* (n_layers, dim) float32; INT8 only */
    int64_t n_sentences;
    int64_t type; /* of the values */
} Shard;

/* One of the stores that a batch is made of, as a row of another table. */
typedef struct {
    const Shard *shards;
    int64_t n_shards;
    const int64_t *shard; /* (count,) of each sentence; -1 gives zeros */
    const int64_t *row;   /* (count,) in its shard */
    int64_t n_layers, dim;
    int64_t offset; /* where its part of a row of the batch begins, in numbers */
} Source;

int featurestore_version(void) { return VERSION; }

/* Offsets and checksums lie in a file, perhaps on an odd address. */
static uint64_t number_at(const char *numbers, int64_t row) {
    uint64_t number;
    memcpy(&number, numbers + 8 * row, sizeof number);
    return number;
}

static int64_t offset_at(const Shard *shard, int64_t row) { return (int64_t)number_at(shard->offsets, row); }

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define VECTORISED __attribute__((target("avx2,f16c")))

#include "xxh3.h"

int featurestore_supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

static const int64_t SIZES[] = {4, 2, 1};

/* Hashed at a time: so few that they are still in the first cache when they are decoded. */
enum { CHECKED_BYTES = 2048, ASKED_BYTES = 2048 };

/* The XXH3-64 of n_first bytes and n_second that are thought to follow them, a few at a time; 0: all at once. */
uint64_t featurestore_hash(const void *first, int64_t n_first, const void *second, int64_t n_second, int64_t step) {
    Hashing begun = hashing(first, n_first, second, n_second);
    for (int64_t end = step; step && end < n_first + n_second; end += step) hash_to(&begun, end);
    return hash_end(&begun);
}

VECTORISED static void halves_to_floats(float *out, const uint16_t *in, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        /* The processor looks ahead within a page of memory only; a sentence is longer. */
        _mm_prefetch((const char *)(in + i + 128), _MM_HINT_T0);
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(in + i))));
        _mm256_storeu_ps(out + i + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(in + i + 8))));
    }
    for (; i < n; i++) out[i] = _cvtsh_ss(in[i]);
}

VECTORISED static void floats_to_halves(uint16_t *out, const float *in, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) out[i] = _cvtss_sh(in[i], _MM_FROUND_TO_NEAREST_INT);
}

VECTORISED static __m256 eight_decoded(const int8_t *in, __m256 scale, const float *norms) {
    __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)in)));
    return _mm256_mul_ps(_mm256_mul_ps(values, scale), _mm256_loadu_ps(norms));
}

VECTORISED static void bytes_to_floats(float *out, const int8_t *in, float scale, const float *norms, int64_t n) {
    __m256 scales = _mm256_set1_ps(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, eight_decoded(in + i, scales, norms + i));
    for (; i < n; i++) out[i] = (float)in[i] * scale * norms[i];
}

VECTORISED static void bytes_to_halves(uint16_t *out, const int8_t *in, float scale, const float *norms, int64_t n) {
    __m256 scales = _mm256_set1_ps(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i),
                         _mm256_cvtps_ph(eight_decoded(in + i, scales, norms + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; i++) out[i] = _cvtss_sh((float)in[i] * scale * norms[i], _MM_FROUND_TO_NEAREST_INT);
}

/* Decode int8 tokens: each layer of each has a scale, each layer its norms. */
static void decode_int8(char *out, int type, const Shard *shard, int64_t start, int64_t n_tokens, int64_t n_layers,
                        int64_t dim) {
    const int8_t *in = (const int8_t *)shard->values + start * n_layers * dim;
    for (int64_t row = 0; row < n_tokens * n_layers; row++, in += dim, out += dim * SIZES[type]) {
        const float *norms = (const float *)shard->norms + row % n_layers * dim;
        float scale;
        memcpy(&scale, shard->scales + 4 * (start * n_layers + row), sizeof scale);
        if (type == FLOAT32)
            bytes_to_floats((float *)out, in, scale, norms, dim);
        else
            bytes_to_halves((uint16_t *)out, in, scale, norms, dim);
    }
}

/* Decode tokens that lie together into rows that lie together; without a shard they are zeros. */
static void decode(char *out, int type, const Shard *shard, int64_t start, int64_t n_tokens, int64_t n_layers,
                   int64_t dim) {
    int64_t n = n_tokens * n_layers * dim;
    if (!shard) {
        memset(out, 0, n * SIZES[type]);
    } else if (shard->type == INT8) {
        decode_int8(out, type, shard, start, n_tokens, n_layers, dim);
    } else {
        const char *in = shard->values + start * n_layers * dim * SIZES[shard->type];
        if (shard->type == type)
            memcpy(out, in, n * SIZES[type]);
        else if (type == FLOAT32)
            halves_to_floats((float *)out, (const uint16_t *)in, n);
        else
            floats_to_halves((uint16_t *)out, (const float *)in, n);
    }
}

/* Return the first sentence that cannot be read as it is from a source, -1 if all can. */
static int64_t unreadable(const Source *source, const int64_t *lengths, int64_t count, int verify) {
    for (int64_t i = 0; i < count; i++) {
        if (source->shard[i] >= source->n_shards) return i;
        if (source->shard[i] < 0) continue;
        const Shard *from = source->shards + source->shard[i];
        int64_t row = source->row[i];
        if (row < 0 || row >= from->n_sentences) return i;
        if (!from->values || (!verify && from->verified && !from->verified[row])) return i;
        if (offset_at(from, row + 1) - offset_at(from, row) != lengths[i]) return i;
    }
    return -1;
}

/* A sentence of a source. */
typedef struct {
    const Source *source;
    const Shard *shard; /* NULL: zeros */
    int64_t row, start; /* in the shard: its number, and that of its first token */
} Sentence;

static Sentence sentence_at(const Source *source, int64_t i) {
    const Shard *shard = source->shard[i] < 0 ? NULL : source->shards + source->shard[i];
    Sentence found = {source, shard, source->row[i], shard ? offset_at(shard, source->row[i]) : 0};
    return found;
}

/* Where tokens are decoded into: rows that begin step bytes apart, one after the other or, with into, the numbers of
 * which it has. */
typedef struct {
    char *first;
    const int64_t *into;
    int64_t step;
    int type;
} Rows;

/* Decode n tokens of a sentence, from one on, into the rows for them. */
static void decode_rows(const Rows *rows, const Sentence *sentence, int64_t from, int64_t n) {
    const Source *source = sentence->source;
    int64_t start = sentence->start + from, n_layers = source->n_layers, dim = source->dim, step = rows->step;
    char *out = rows->first + source->offset * SIZES[rows->type];
    if (!rows->into && step == n_layers * dim * SIZES[rows->type])
        decode(out + from * step, rows->type, sentence->shard, start, n, n_layers, dim);
    else
        for (int64_t t = 0; t < n; t++)
            decode(out + (rows->into ? rows->into[from + t] : from + t) * step, rows->type, sentence->shard, start + t, 1,
                   n_layers, dim);
}

/* Compare the checksum of a sentence, and with rows decode it; return whether it is the one that was committed.
 *
 * A few rows are hashed, then decoded from the cache; whether all were right is known in the end.
 */
static int decode_checked(const Rows *rows, const Sentence *sentence, int64_t n_tokens) {
    const Shard *shard = sentence->shard;
    int64_t n_vectors = sentence->source->n_layers, n_bytes = n_vectors * sentence->source->dim * SIZES[shard->type];
    int64_t at_once = n_bytes < CHECKED_BYTES ? CHECKED_BYTES / n_bytes : 1;
    const char *scales = shard->scales ? shard->scales + 4 * n_vectors * sentence->start : NULL;
    Hashing begun = hashing(shard->values + n_bytes * sentence->start, n_bytes * n_tokens, scales,
                            scales ? 4 * n_vectors * n_tokens : 0);
    for (int64_t t = 0; rows && t < n_tokens; t += at_once) {
        int64_t n = n_tokens - t < at_once ? n_tokens - t : at_once;
        hash_to(&begun, n_bytes * (t + n));
        decode_rows(rows, sentence, t, n);
    }
    if (hash_end(&begun) != number_at(shard->checksums, sentence->row)) return 0;
    shard->verified[sentence->row] = 1;
    return 1;
}

static int is_checked(const Sentence *sentence) {
    const Shard *shard = sentence->shard;
    return !shard || !shard->verified || shard->verified[sentence->row];
}

/* Ask for the beginning of a sentence, and the page it is in: to wait for them takes as long as a few rows. */
static void ask_for(const Source *source, int64_t i) {
    Sentence next = sentence_at(source, i);
    if (!next.shard) return;
    int64_t n_bytes = source->n_layers * source->dim * SIZES[next.shard->type];
    const char *in = next.shard->values + n_bytes * next.start;
    for (int64_t at = 0; at < ASKED_BYTES; at += 64) _mm_prefetch(in + at, _MM_HINT_T0);
}

/* Decode a sentence from all sources; return whether its bytes are those that were committed. */
static int decode_sentence(const Rows *rows, const Source *sources, int64_t n_sources, int64_t i, int64_t n_tokens) {
    Sentence sentences[n_sources];
    for (int64_t s = 0; s < n_sources; s++) {
        sentences[s] = sentence_at(sources + s, i);
        if (is_checked(sentences + s)) continue;
        if (n_sources == 1) return decode_checked(rows, sentences, n_tokens);
        if (!decode_checked(NULL, sentences + s, n_tokens)) return 0;
    }
    if (n_sources == 1) {
        decode_rows(rows, sentences, 0, n_tokens);
        return 1;
    }
    /* All parts of a row in turn: a batch is larger than the cache, and its rows are written once. */
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t s = 0; s < n_sources; s++) decode_rows(rows, sentences + s, t, 1);
    return 1;
}

/* Decode sentences into a batch, from one source or several, each of which fills its part of every row.
 *
 * lengths: (count,) of each sentence, the same in all sources.
 * longest: rows of a padded sentence, which end in zeros; -1: the sentences are not padded.
 * into: (n_rows,) the row for each token, all different, where sentences that are not padded do not lie end to end;
 *     NULL: they do.
 * out, type: n_rows rows of FLOAT32 or FLOAT16, of which one begins stride numbers after the other; what lies between
 *     the parts of the sources is left alone.
 * verify: whether to compare those checksums of the sentences that were not compared before.
 *
 * Returns -1; or the first sentence that cannot be read as it is, because its shard is not open, its checksum has
 * not been compared, it has another length, there is no such sentence, or out has no such row; or count, if out
 * has more rows. Nothing is written then. With verify, also the first sentence of which a checksum is another: what was
 * written then must not be used.
 */
int64_t featurestore_gather(const Source *sources, int64_t n_sources, const int64_t *lengths, int64_t count,
                            int64_t longest, const int64_t *into, int64_t n_rows, int type, char *out, int64_t stride,
                            int verify) {
    int64_t n_used = 0;
    for (int64_t i = 0; i < count; i++) {
        if (lengths[i] < 0 || (longest >= 0 && lengths[i] > longest)) return i;
        int64_t n_more = longest < 0 ? lengths[i] : longest;
        if (n_more > n_rows - n_used) return i;
        for (int64_t t = 0; into && t < n_more; t++)
            if (into[n_used + t] < 0 || into[n_used + t] >= n_rows) return i;
        n_used += n_more;
    }
    if (n_used != n_rows) return count;
    for (int64_t s = 0; s < n_sources; s++) {
        int64_t failed = unreadable(sources + s, lengths, count, verify);
        if (failed >= 0) return failed;
    }
    Rows rows = {out, into, stride * SIZES[type], type};
    for (int64_t i = 0; i < count; i++) {
        for (int64_t s = 0; i + 1 < count && s < n_sources; s++) ask_for(sources + s, i + 1);
        if (!decode_sentence(&rows, sources, n_sources, i, lengths[i])) return i;
        if (into) {
            rows.into += lengths[i];
            continue;
        }
        rows.first += lengths[i] * rows.step;
        for (int64_t t = lengths[i]; t < longest; t++, rows.first += rows.step)
            for (int64_t s = 0; s < n_sources; s++)
                memset(rows.first + sources[s].offset * SIZES[type], 0,
                       sources[s].n_layers * sources[s].dim * SIZES[type]);
    }
    return -1;
}

#else

int featurestore_supported(void) { return 0; }

#endif
