/* Arithmetic of vectors of floats, and what LSTMs make of it. Included once for each instruction set: SUFFIX ends its
 * names, TARGET is the attribute of its functions, LENGTH is how many floats a vector has.
 *
 * Functions without that attribute must not work on vectors: GCC takes them apart there, and they stay so where they
 * are inlined. It also takes vectors apart that are longer than the registers of the target.
 */
#ifndef FEATURESTORE_VECTOR_ARITHMETIC
#define FEATURESTORE_VECTOR_ARITHMETIC
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define CAT_(a, b) a##_##b
#define CAT(a, b) CAT_(a, b)
#define NAME(name) CAT(name, SUFFIX)
#endif

#ifdef TARGET
#define Floats NAME(Floats)
#define Ints NAME(Ints)
#define all NAME(all)
#define chosen NAME(chosen)
#define exponential NAME(exponential)
#define magnitude NAME(magnitude)
#define with_sign_of NAME(with_sign_of)
#define sigmoid NAME(sigmoid)
#define tangent NAME(tangent)

typedef float Floats __attribute__((vector_size(4 * LENGTH)));
typedef int32_t Ints __attribute__((vector_size(4 * LENGTH)));

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
#endif
