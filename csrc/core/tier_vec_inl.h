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

/* Comparisons with NaN are false, so NaN passes through all three. */
SL_INLINE vf
v_at_least(vf x, vf low)
{
    return v_select(x < low, low, x);
}

SL_INLINE vf
v_at_most(vf x, vf high)
{
    return v_select(x > high, high, x);
}

/* One stage of a transpose: swaps the off-diagonal h x h blocks of each 2h x 2h block. */
#if SL_LANES == 16
#define SL_SWAP8_LO 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define SL_SWAP8_HI 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define SL_SWAP4_LO 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define SL_SWAP4_HI 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define SL_SWAP2_LO 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define SL_SWAP2_HI 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define SL_SWAP1_LO 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define SL_SWAP1_HI 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#elif SL_LANES == 8
#define SL_SWAP4_LO 0, 1, 2, 3, 8, 9, 10, 11
#define SL_SWAP4_HI 4, 5, 6, 7, 12, 13, 14, 15
#define SL_SWAP2_LO 0, 1, 8, 9, 4, 5, 12, 13
#define SL_SWAP2_HI 2, 3, 10, 11, 6, 7, 14, 15
#define SL_SWAP1_LO 0, 8, 2, 10, 4, 12, 6, 14
#define SL_SWAP1_HI 1, 9, 3, 11, 5, 13, 7, 15
#else
#define SL_SWAP2_LO 0, 1, 4, 5
#define SL_SWAP2_HI 2, 3, 6, 7
#define SL_SWAP1_LO 0, 4, 2, 6
#define SL_SWAP1_HI 1, 5, 3, 7
#endif

#define SL_SWAP(v, h, lo, hi)                                                                                          \
    SL_UNROLL                                                                                                          \
    for (int i_ = 0; i_ < SL_LANES; i_++) {                                                                            \
        if ((i_ & (h)) == 0) {                                                                                         \
            const vf a_ = (v)[i_], b_ = (v)[i_ + (h)];                                                                 \
            (v)[i_] = SL_SHUFFLE(a_, b_, lo);                                                                          \
            (v)[i_ + (h)] = SL_SHUFFLE(a_, b_, hi);                                                                    \
        }                                                                                                              \
    }

/* v[i][j] <-> v[j][i] of an SL_LANES x SL_LANES block held in registers. */
SL_INLINE void
v_transpose(vf v[SL_LANES])
{
#if SL_LANES == 16
    SL_SWAP(v, 8, SL_SWAP8_LO, SL_SWAP8_HI)
#endif
#if SL_LANES >= 8
    SL_SWAP(v, 4, SL_SWAP4_LO, SL_SWAP4_HI)
#endif
    SL_SWAP(v, 2, SL_SWAP2_LO, SL_SWAP2_HI)
    SL_SWAP(v, 1, SL_SWAP1_LO, SL_SWAP1_HI)
}
#endif
