/* Sixteen floats at a time for lstm_steps.h: functions of gates, operands, columns made of rows. */

/* Arithmetic of vectors is written for the target too: GCC takes vectors apart in functions that have none. */
#define load NAME(load)
#define store NAME(store)
#define load_some NAME(load_some)
#define store_some NAME(store_some)
#define all NAME(all)
#define chosen NAME(chosen)
#define exponential NAME(exponential)
#define magnitude NAME(magnitude)
#define with_sign_of NAME(with_sign_of)
#define sigmoid NAME(sigmoid)
#define tangent NAME(tangent)

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

INLINE TARGET Floats all(float value) { return value - (Floats){0}; }

INLINE TARGET Floats chosen(Ints where, Floats yes, Floats no) { return (Floats)(((Ints)yes & where) | ((Ints)no & ~where)); }

/* exp for arguments of at most 0: x = n ln 2 + r, a polynomial in r, n added to the exponent. After S. Moshier's
 * Cephes library, expf: one unit in the last place. */
INLINE TARGET Floats exponential(Floats x) {
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

INLINE TARGET Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

INLINE TARGET Floats with_sign_of(Floats values, Floats signs) {
    return (Floats)((Ints)values | ((Ints)signs & (int32_t)0x80000000));
}

INLINE TARGET Floats sigmoid(Floats x) {
    Floats small = exponential(-magnitude(x)); /* of the negative side, which cannot overflow */
    Floats result = chosen(x < all(0.0f), small, all(1.0f)) / (all(1.0f) + small);
    return chosen(x != x, x, result);
}

INLINE TARGET Floats tangent(Floats x) { /* hyperbolic; Cephes' polynomial below 0.625 */
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
