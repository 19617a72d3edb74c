/* Many keys found in the mapped runs of an index, in one call.
 *
 * Read by featurestore/store/index/compiled.py through ctypes: no Python header is needed to compile it. It answers
 * what lookup.py answers with NumPy, and finds the same damage. Keys are looked up a few at a time, so that the
 * processor fetches the memory of all of them at once: at 100 million keys each needs three reads of it.
 */
#include <stdint.h>
#include <string.h>

#define VERSION 1
#define TOGETHER 32

/* A run, as a row of the table that compiled.py keeps. */
typedef struct {
    const uint64_t *table;   /* (2^bits + 1, 2): where each bucket's records begin, and its check */
    const uint64_t *records; /* (n_records, 3) */
    uint64_t n_records, bits, largest, first, stop;
} Run;

enum { SOUND = 0, TABLE_DAMAGED = 1, BUCKET_DAMAGED = 2, OTHER_SHARD = 3, OUTSIDE_SHARD = 4 };

int featurestore_index_version(void) { return VERSION; }

/* The numbers of an index are little-endian. */
int featurestore_index_supported(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

#if defined(__GNUC__)
#define FETCH(address) __builtin_prefetch(address)
#else
#define FETCH(address) ((void)(address))
#endif

static uint64_t mixed(uint64_t word) {
    word = (word ^ word >> 32) * 0x9E3779B185EBCA87u;
    return word ^ word >> 29;
}

static uint64_t big_endian(const uint8_t *bytes) {
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) word = word << 8 | bytes[i];
    return word;
}

static uint64_t bucket_of(const Run *run, uint64_t high) { return run->bits ? high >> (64 - run->bits) : 0; }

/* Whether a bucket is what was written and has the key; then its place. */
static int find(const Run *run, uint64_t high, uint64_t low, uint64_t *place, int *found) {
    uint64_t bucket = bucket_of(run, high);
    uint64_t start = run->table[2 * bucket], check = run->table[2 * bucket + 1], stop = run->table[2 * bucket + 2];
    uint64_t total = mixed(bucket * 0x27D4EB2F165667C5u + start * 0x85EBCA77C2B2AE63u + stop * 0x165667B19E3779F9u +
                           0xC2B2AE3D27D4EB4Fu);
    *found = 0;
    /* Unsigned: a decrease is a huge size. */
    if (stop - start > run->largest || stop > run->n_records || start > run->n_records) return TABLE_DAMAGED;
    for (uint64_t number = start; number < stop; number++) {
        const uint64_t *record = run->records + 3 * number;
        total += mixed(record[0] * 0x9E3779B185EBCA87u + record[1] * 0xC2B2AE3D27D4EB4Fu +
                       record[2] * 0x165667B19E3779F9u + number * 0x85EBCA77C2B2AE63u);
        if (record[0] == high && record[1] == low && !*found) {
            *found = 1;
            *place = record[2];
        }
    }
    return total == check ? SOUND : BUCKET_DAMAGED;
}

/* Find n keys of 16 bytes each; shard and row of a missing one are -1. Of a key in two runs the first counts.
 * Return what is wrong with the runs, SOUND if nothing that was read. */
int featurestore_index_locate(const Run *runs, int64_t n_runs, const uint64_t *sizes, const uint8_t *keys, int64_t n,
                              int64_t *shard, int64_t *row) {
    for (int64_t begin = 0; begin < n; begin += TOGETHER) {
        int n_here = n - begin < TOGETHER ? (int)(n - begin) : TOGETHER;
        uint64_t high[TOGETHER], low[TOGETHER];
        int missing[TOGETHER], n_missing = n_here;
        for (int i = 0; i < n_here; i++) {
            high[i] = big_endian(keys + 16 * (begin + i));
            low[i] = big_endian(keys + 16 * (begin + i) + 8);
            missing[i] = i;
            shard[begin + i] = row[begin + i] = -1;
        }
        for (const Run *run = runs; run < runs + n_runs && n_missing; run++) {
            int n_left = 0;
            for (int i = 0; i < n_missing; i++) {
                const uint64_t *entry = run->table + 2 * bucket_of(run, high[missing[i]]);
                FETCH(entry);
                FETCH(entry + 2);
            }
            for (int i = 0; i < n_missing; i++) {
                uint64_t start = run->table[2 * bucket_of(run, high[missing[i]])];
                if (start >= run->n_records) continue;
                /* Eight records are as many as most buckets have: three or four lines of memory. */
                for (uint64_t line = 0; line < 4; line++) FETCH((const char *)(run->records + 3 * start) + 64 * line);
            }
            for (int i = 0; i < n_missing; i++) {
                int key = missing[i], found, wrong;
                uint64_t place;
                if ((wrong = find(run, high[key], low[key], &place, &found)) != SOUND) return wrong;
                if (!found) {
                    missing[n_left++] = key;
                    continue;
                }
                uint64_t number = place >> 32, at = place & 0xFFFFFFFFu;
                if (number < run->first || number >= run->stop) return OTHER_SHARD;
                if (sizes && at >= sizes[number]) return OUTSIDE_SHARD;
                shard[begin + key] = (int64_t)number;
                row[begin + key] = (int64_t)at;
            }
            n_missing = n_left;
        }
    }
    return SOUND;
}
