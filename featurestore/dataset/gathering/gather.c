/* Sentences out of mapped shards into a batch, decoded on the way, in one call.
 *
 * Read by featurestore/dataset/gathering/compiled.py through ctypes: no Python header is needed to compile it. The
 * instructions are those of x86 processors since 2013 (AVX2, F16C); elsewhere featurestore_supported() says 0
 * and torch does the work. The values are those of torch, bit for bit.
 */
#include <stdint.h>
#include <string.h>

#define VERSION 1

enum { FLOAT32 = 0, FLOAT16 = 1, INT8 = 2 };

/* A shard, as a row of the table that compiled.py keeps. */
typedef struct {
    const char *values;      /* (n_tokens, n_layers, dim); NULL: not there to be read */
    const char *offsets;     /* (n_sentences + 1,) uint64: where each sentence begins */
    const uint8_t *verified; /* (n_sentences,): its checksum need not be compared; NULL: all of them */
    const char *scales;      /* (n_tokens, n_layers) float32; INT8 only */
    const char *norms;       /* (n_layers, dim) float32; INT8 only */
    int64_t n_sentences;
    int64_t type; /* of the values */
} Shard;

int featurestore_version(void) { return VERSION; }

/* Offsets lie in a file, perhaps on an odd address. */
static int64_t offset_at(const Shard *shard, int64_t row) {
    uint64_t offset;
    memcpy(&offset, shard->offsets + 8 * row, sizeof offset);
    return (int64_t)offset;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define VECTORISED __attribute__((target("avx2,f16c")))

int featurestore_supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

static const int64_t SIZES[] = {4, 2, 1};

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

/* Decode sentences into a batch.
 *
 * shard, row, lengths: (count,) of each sentence; a shard of -1 gives zeros.
 * longest: rows of a padded sentence, which end in zeros; -1: the sentences lie end to end.
 * into: (sum of lengths,) the row for each token, all different, where the sentences do not lie end to end; NULL: they do.
 * out, type: (n_rows, n_layers, dim) FLOAT32 or FLOAT16.
 *
 * Returns -1; or the first sentence that cannot be read as it is, because its shard is not open, its checksum has
 * not been compared, it has another length, there is no such sentence, or out has no such row. Nothing is written
 * then.
 */
int64_t featurestore_gather(const Shard *shards, int64_t n_shards, const int64_t *shard, const int64_t *row,
                            const int64_t *lengths, int64_t count, int64_t longest, const int64_t *into,
                            int64_t n_rows, int64_t n_layers, int64_t dim, int type, char *out) {
    int64_t out_row = n_layers * dim * SIZES[type], n_used = 0;
    for (int64_t i = 0; i < count; i++) {
        if (lengths[i] < 0 || (longest >= 0 && lengths[i] > longest) || shard[i] >= n_shards) return i;
        for (int64_t t = 0; into && t < lengths[i]; t++)
            if (into[n_used + t] < 0 || into[n_used + t] >= n_rows) return i;
        n_used += longest < 0 ? lengths[i] : longest;
        if (n_used > n_rows) return i;
        if (shard[i] < 0) continue;
        const Shard *from = shards + shard[i];
        if (row[i] < 0 || row[i] >= from->n_sentences) return i;
        if (!from->values || (from->verified && !from->verified[row[i]])) return i;
        if (offset_at(from, row[i] + 1) - offset_at(from, row[i]) != lengths[i]) return i;
    }
    for (int64_t i = 0; i < count; i++) {
        const Shard *from = shard[i] < 0 ? NULL : shards + shard[i];
        int64_t start = from ? offset_at(from, row[i]) : 0, n_tokens = lengths[i];
        if (into) {
            for (int64_t t = 0; t < n_tokens; t++)
                decode(out + *into++ * out_row, type, from, start + t, 1, n_layers, dim);
            continue;
        }
        decode(out, type, from, start, n_tokens, n_layers, dim);
        out += n_tokens * out_row;
        if (longest > n_tokens) {
            memset(out, 0, (longest - n_tokens) * out_row);
            out += (longest - n_tokens) * out_row;
        }
    }
    return -1;
}

#else

int featurestore_supported(void) { return 0; }

#endif
