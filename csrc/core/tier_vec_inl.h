/* The vector type of a tier: SL_LANES float32 lanes through GCC vector extensions, with the few operations that need a builtin.
 * Included by tier_body_inl.h only.  SL_FMA tells whether v_fma rounds once (FMA tiers) or twice (baseline). */
#ifndef TIER_VEC_INL_H
#define TIER_VEC_INL_H

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SL_INLINE static inline __attribute__((always_inline, unused))
#if defined(__clang__)
#define SL_UNROLL _Pragma("clang loop unroll(full)")
#define SL_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SL_UNROLL _Pragma("GCC unroll 16")
#define SL_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

typedef float vf __attribute__((vector_size(4 * SL_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * SL_LANES)));
typedef float vf_any __attribute__((vector_size(4 * SL_LANES), aligned(4), may_alias)); /* anywhere in memory */

SL_INLINE ptrdiff_t
sl_least(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

SL_INLINE vf
v_load(const float *p)
{
    return *(const vf_any *)p;
}

SL_INLINE void
v_store(float *p, vf v)
{
    *(vf_any *)p = v;
}

#if SL_LANES == 16
#define SL_FMA 1
SL_INLINE vf
v_all(float s)
{
    return (vf)_mm512_set1_ps(s);
}
SL_INLINE vf
v_fma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif SL_LANES == 8
#define SL_FMA 1
SL_INLINE vf
v_all(float s)
{
    return (vf)_mm256_set1_ps(s);
}
SL_INLINE vf
v_fma(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#elif defined(__aarch64__) && defined(SL_TIER_IS_NEON)
#define SL_FMA 1
SL_INLINE vf
v_all(float s)
{
    return (vf)vdupq_n_f32(s);
}
SL_INLINE vf
v_fma(vf a, vf b, vf c)
{
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
#define SL_FMA 0
SL_INLINE vf
v_all(float s)
{
    return (vf){s, s, s, s};
}
SL_INLINE vf
v_fma(vf a, vf b, vf c)
{
    return a * b + c;
}
#endif

SL_INLINE vf
v_select(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/* x where neither is less: NaN and the sign of 0 in x pass through both.  That is what the instructions of x86 do with x on the right. */
SL_INLINE vf
v_at_least(vf x, vf low)
{
#if SL_LANES == 16
    return (vf)_mm512_max_ps((__m512)low, (__m512)x);
#elif SL_LANES == 8
    return (vf)_mm256_max_ps((__m256)low, (__m256)x);
#elif defined(__x86_64__)
    return (vf)_mm_max_ps((__m128)low, (__m128)x);
#else
    return v_select(x < low, low, x);
#endif
}

SL_INLINE vf
v_at_most(vf x, vf high)
{
#if SL_LANES == 16
    return (vf)_mm512_min_ps((__m512)high, (__m512)x);
#elif SL_LANES == 8
    return (vf)_mm256_min_ps((__m256)high, (__m256)x);
#elif defined(__x86_64__)
    return (vf)_mm_min_ps((__m128)high, (__m128)x);
#else
    return v_select(x > high, high, x);
#endif
}

/* Four neighbours each of the rows 0, 4, 8, ... at p, as many as fill a vector. */
SL_INLINE vf
v_load_quads(const float *p, ptrdiff_t ld)
{
#if SL_LANES == 16
    const __m512 low = _mm512_castps256_ps512(
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * ld), 1));
    return (vf)_mm512_insertf32x4(_mm512_insertf32x4(low, _mm_loadu_ps(p + 8 * ld), 2), _mm_loadu_ps(p + 12 * ld), 3);
#elif SL_LANES == 8
    return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * ld), 1);
#else
    (void)ld;
    return v_load(p);
#endif
}

#if SL_LANES == 16
#define SL_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define SL_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define SL_INTERLEAVE_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SL_INTERLEAVE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define SL_ZIP_LOW 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define SL_ZIP_HIGH 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define SL_PAIRS_LOW 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define SL_PAIRS_HIGH 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#elif SL_LANES == 8
#define SL_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define SL_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define SL_INTERLEAVE_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define SL_INTERLEAVE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define SL_ZIP_LOW 0, 8, 1, 9, 4, 12, 5, 13
#define SL_ZIP_HIGH 2, 10, 3, 11, 6, 14, 7, 15
#define SL_PAIRS_LOW 0, 1, 8, 9, 4, 5, 12, 13
#define SL_PAIRS_HIGH 2, 3, 10, 11, 6, 7, 14, 15
#else
#define SL_EVEN 0, 2, 4, 6
#define SL_ODD 1, 3, 5, 7
#define SL_INTERLEAVE_LOW 0, 4, 1, 5
#define SL_INTERLEAVE_HIGH 2, 6, 3, 7
#define SL_ZIP_LOW 0, 4, 1, 5
#define SL_ZIP_HIGH 2, 6, 3, 7
#define SL_PAIRS_LOW 0, 1, 4, 5
#define SL_PAIRS_HIGH 2, 3, 6, 7
#endif

/* column[q][i] = p[i * ld + q] for q < 4, i < SL_LANES: a transpose of SL_LANES rows, four columns at a time. */
SL_INLINE void
v_columns(const float *p, ptrdiff_t ld, vf column[4])
{
    const float *third = p + 2 * ld;
    const vf a = v_load_quads(p, ld), b = v_load_quads(p + ld, ld), c = v_load_quads(third, ld),
             d = v_load_quads(third + ld, ld);
    const vf ab_low = SL_SHUFFLE(a, b, SL_ZIP_LOW), ab_high = SL_SHUFFLE(a, b, SL_ZIP_HIGH);
    const vf cd_low = SL_SHUFFLE(c, d, SL_ZIP_LOW), cd_high = SL_SHUFFLE(c, d, SL_ZIP_HIGH);

    column[0] = SL_SHUFFLE(ab_low, cd_low, SL_PAIRS_LOW);
    column[1] = SL_SHUFFLE(ab_low, cd_low, SL_PAIRS_HIGH);
    column[2] = SL_SHUFFLE(ab_high, cd_high, SL_PAIRS_LOW);
    column[3] = SL_SHUFFLE(ab_high, cd_high, SL_PAIRS_HIGH);
}
#endif
