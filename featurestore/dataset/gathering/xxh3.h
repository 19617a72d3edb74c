/* XXH3-64 with no seed and its own secret, the checksum of a stored sentence, over bytes in one or two pieces.
 *
 * Written after the specification, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md; names of steps
 * are those used there. For little-endian processors; long inputs take AVX2. VECTORISED is the file's that includes it.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { STRIPE = 64, SECRET = 192, SECRET_STEP = 8, STRIPES_IN_BLOCK = (SECRET - STRIPE) / SECRET_STEP };
enum { BLOCK = STRIPE * STRIPES_IN_BLOCK, LONGEST_SHORT = 240, AHEAD = 2048 };

static const uint64_t P32_1 = 0x9E3779B1, P32_2 = 0x85EBCA77, P32_3 = 0xC2B2AE3D;
static const uint64_t P64_1 = 0x9E3779B185EBCA87, P64_2 = 0xC2B2AE3D27D4EB4F, P64_3 = 0x165667B19E3779F9;
static const uint64_t P64_4 = 0x85EBCA77C2B2AE63, P64_5 = 0x27D4EB2F165667C5;
static const uint64_t MIX_1 = 0x165667919E3779F9, MIX_2 = 0x9FB21C651E98DF25;

static const uint8_t secret[SECRET] __attribute__((aligned(64))) = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4, 0x6d, 0xe9,
    0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78,
    0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6,
    0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f,
    0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31,
    0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff,
    0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

/* Bytes one after the other, of which the first n_first lie in one place and the others in another. */
typedef struct {
    const uint8_t *first, *second;
    int64_t n_first, n;
} Bytes;

/* Return where some of the bytes are, put together in room where they lie in both places. */
static inline const uint8_t *span(const Bytes *bytes, int64_t at, int64_t n, uint8_t *room) {
    if (at + n <= bytes->n_first) return bytes->first + at;
    if (at >= bytes->n_first) return bytes->second + (at - bytes->n_first);
    int64_t n_there = bytes->n_first - at;
    memcpy(room, bytes->first + at, n_there);
    memcpy(room + n_there, bytes->second, n - n_there);
    return room;
}

static inline uint64_t word(const uint8_t *at) {
    uint64_t found;
    memcpy(&found, at, sizeof found);
    return found;
}

static inline uint64_t half_word(const uint8_t *at) {
    uint32_t found;
    memcpy(&found, at, sizeof found);
    return found;
}

static inline uint64_t rotated(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline uint64_t folded_product(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t avalanche(uint64_t x) {
    x = (x ^ x >> 37) * MIX_1;
    return x ^ x >> 32;
}

/* That of XXH64, for the shortest inputs. */
static inline uint64_t avalanche_64(uint64_t x) {
    x = (x ^ x >> 33) * P64_2;
    x = (x ^ x >> 29) * P64_3;
    return x ^ x >> 32;
}

static inline uint64_t mixed_16(const uint8_t *in, int at) {
    return folded_product(word(in) ^ word(secret + at), word(in + 8) ^ word(secret + at + 8));
}

static uint64_t hash_to_16(const uint8_t *in, int64_t n) {
    if (n > 8) {
        uint64_t low = word(in) ^ word(secret + 24) ^ word(secret + 32);
        uint64_t high = word(in + n - 8) ^ word(secret + 40) ^ word(secret + 48);
        return avalanche((uint64_t)n + __builtin_bswap64(low) + high + folded_product(low, high));
    }
    if (n >= 4) {
        uint64_t x = (half_word(in + n - 4) + (half_word(in) << 32)) ^ word(secret + 8) ^ word(secret + 16);
        x = (x ^ rotated(x, 49) ^ rotated(x, 24)) * MIX_2;
        x = (x ^ ((x >> 35) + (uint64_t)n)) * MIX_2;
        return x ^ x >> 28;
    }
    if (n) {
        uint64_t x = (uint64_t)in[0] << 16 | (uint64_t)in[n >> 1] << 24 | in[n - 1] | (uint64_t)n << 8;
        return avalanche_64(x ^ half_word(secret) ^ half_word(secret + 4));
    }
    return avalanche_64(word(secret + 56) ^ word(secret + 64));
}

static uint64_t hash_to_240(const uint8_t *in, int64_t n) {
    uint64_t sum = (uint64_t)n * P64_1, last;
    if (n <= 128) {
        /* From both ends towards the middle. */
        for (int64_t i = (n - 1) / 32; i >= 0; i--)
            sum += mixed_16(in + 16 * i, 32 * (int)i) + mixed_16(in + n - 16 * (i + 1), 32 * (int)i + 16);
        return avalanche(sum);
    }
    for (int i = 0; i < 8; i++) sum += mixed_16(in + 16 * i, 16 * i);
    sum = avalanche(sum);
    last = mixed_16(in + n - 16, 136 - 17);
    for (int i = 8; i < n / 16; i++) last += mixed_16(in + 16 * i, 16 * (i - 8) + 3);
    return avalanche(sum + last);
}

/* One half of the eight accumulators, after four words of a stripe. */
VECTORISED static inline __m256i accumulated(__m256i sums, const uint8_t *in, const uint8_t *key) {
    __m256i words = _mm256_loadu_si256((const __m256i *)in);
    __m256i keyed = _mm256_xor_si256(words, _mm256_loadu_si256((const __m256i *)key));
    __m256i products = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    __m256i neighbours = _mm256_shuffle_epi32(words, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(_mm256_add_epi64(sums, neighbours), products);
}

VECTORISED static inline __m256i scrambled(__m256i sums, const uint8_t *key) {
    __m256i prime = _mm256_set1_epi64x((long long)P32_1);
    sums = _mm256_xor_si256(sums, _mm256_srli_epi64(sums, 47));
    sums = _mm256_xor_si256(sums, _mm256_loadu_si256((const __m256i *)key));
    __m256i high = _mm256_slli_epi64(_mm256_mul_epu32(_mm256_srli_epi64(sums, 32), prime), 32);
    return _mm256_add_epi64(_mm256_mul_epu32(sums, prime), high);
}

/* A hash under way: the stripes that have been taken in, of bytes that are not few. */
typedef struct {
    Bytes bytes;
    int64_t n_taken;
    uint64_t sums[8];
} Hashing;

static Hashing hashing(const void *first, int64_t n_first, const void *second, int64_t n_second) {
    Hashing begun = {{first, second, n_first, n_first + n_second}, 0, {P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1}};
    return begun;
}

/* Take in what there is before a byte: done piece by piece, it is decoded in between while it is in the cache. */
VECTORISED static void hash_to(Hashing *hashing, int64_t end) {
    const Bytes *bytes = &hashing->bytes;
    uint8_t room[STRIPE];
    const uint8_t *end_key = secret + SECRET - STRIPE;
    /* The last stripe, whole or not, is taken from the end. */
    int64_t n_stripes = (bytes->n > LONGEST_SHORT ? (end < bytes->n ? end : bytes->n - 1) : 0) / STRIPE;
    __m256i low = _mm256_loadu_si256((const __m256i *)hashing->sums);
    __m256i high = _mm256_loadu_si256((const __m256i *)(hashing->sums + 4));
    while (hashing->n_taken < n_stripes) {
        int64_t at = hashing->n_taken * STRIPE, in_block = hashing->n_taken % STRIPES_IN_BLOCK;
        /* To the end of the block, or of the place they are in; or the one that lies in both. */
        int64_t n = n_stripes - hashing->n_taken, n_here = (bytes->n_first - at) / STRIPE;
        if (n > STRIPES_IN_BLOCK - in_block) n = STRIPES_IN_BLOCK - in_block;
        if (at < bytes->n_first && n > n_here) n = n_here ? n_here : 1;
        const uint8_t *in = span(bytes, at, n * STRIPE, room), *key = secret + in_block * SECRET_STEP;
        for (int64_t s = 0; s < n; s++, in += STRIPE, key += SECRET_STEP) {
            /* The processor looks ahead within a page of memory only; a sentence is longer. */
            _mm_prefetch((const char *)(in + AHEAD), _MM_HINT_T0);
            low = accumulated(low, in, key);
            high = accumulated(high, in + STRIPE / 2, key + STRIPE / 2);
        }
        hashing->n_taken += n;
        if (hashing->n_taken % STRIPES_IN_BLOCK == 0) {
            low = scrambled(low, end_key);
            high = scrambled(high, end_key + STRIPE / 2);
        }
    }
    _mm256_storeu_si256((__m256i *)hashing->sums, low);
    _mm256_storeu_si256((__m256i *)(hashing->sums + 4), high);
}

/* Return the hash of all bytes, after taking in what has not been. */
VECTORISED static uint64_t hash_end(Hashing *hashing) {
    const Bytes *bytes = &hashing->bytes;
    uint8_t room[LONGEST_SHORT];
    if (bytes->n <= LONGEST_SHORT) {
        const uint8_t *in = span(bytes, 0, bytes->n, room);
        return bytes->n > 16 ? hash_to_240(in, bytes->n) : hash_to_16(in, bytes->n);
    }
    hash_to(hashing, bytes->n);
    const uint8_t *in = span(bytes, bytes->n - STRIPE, STRIPE, room), *key = secret + SECRET - STRIPE - 7;
    __m256i low = _mm256_loadu_si256((const __m256i *)hashing->sums);
    __m256i high = _mm256_loadu_si256((const __m256i *)(hashing->sums + 4));
    uint64_t sums[8], sum = (uint64_t)bytes->n * P64_1;
    _mm256_storeu_si256((__m256i *)sums, accumulated(low, in, key));
    _mm256_storeu_si256((__m256i *)(sums + 4), accumulated(high, in + STRIPE / 2, key + STRIPE / 2));
    for (int s = 0; s < 8; s += 2)
        sum += folded_product(sums[s] ^ word(secret + 11 + 8 * s), sums[s + 1] ^ word(secret + 11 + 8 * s + 8));
    return avalanche(sum);
}
