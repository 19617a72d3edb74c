/* Sixteen floats at a time for lstm_steps.h: in memory, as operands, columns made of rows. */

#include "vector_arithmetic.h"

#define load NAME(load)
#define store NAME(store)
#define load_some NAME(load_some)
#define store_some NAME(store_some)

INLINE TARGET Floats load(const float *from) {
    return *(const Anywhere *)from;
}

INLINE TARGET void store(float *to, Floats values) { *(Anywhere *)to = values; }

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

/* Sixteen vectors turned into their columns. */
INLINE TARGET void NAME(transpose)(Floats rows[WIDTH]) {
#if LANES == 16
    __m512 a[WIDTH], b[WIDTH];
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH; i += 2) {
        a[i] = _mm512_unpacklo_ps((__m512)rows[i], (__m512)rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps((__m512)rows[i], (__m512)rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < WIDTH; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = (__m512)_mm512_unpacklo_pd((__m512d)a[i + j], (__m512d)a[i + j + 2]);
            b[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd((__m512d)a[i + j], (__m512d)a[i + j + 2]);
        }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512 even = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88), odd = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
        __m512 even2 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
        __m512 odd2 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
        rows[j] = (Floats)_mm512_shuffle_f32x4(even, even2, 0x88);
        rows[4 + j] = (Floats)_mm512_shuffle_f32x4(odd, odd2, 0x88);
        rows[8 + j] = (Floats)_mm512_shuffle_f32x4(even, even2, 0xdd);
        rows[12 + j] = (Floats)_mm512_shuffle_f32x4(odd, odd2, 0xdd);
    }
#else
    float from[WIDTH][WIDTH], to[WIDTH][WIDTH];
    memcpy(from, rows, sizeof from);
    for (int i = 0; i < WIDTH; i++)
        for (int j = 0; j < WIDTH; j++) to[i][j] = from[j][i];
    memcpy(rows, to, sizeof to);
#endif
}
