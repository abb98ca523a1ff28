/* Inner loops of sl_knn.c and sl_mst.c, compiled once per tier; the double vectors are those of tier_lens_inl.h.  Blocks are [d][SL_SPACE_BLOCK] doubles; no sum is ever fused or
 * reordered, so every tier gives the same bits. */

typedef int64_t vl __attribute__((vector_size(4 * SL_LANES)));

enum { SPACE_VECTORS = SL_SPACE_BLOCK / SL_HALF, SPACE_LOOK = 8 };

/* Larger of two numbers, neither of them NaN: one instruction where the tier has one. */
SL_INLINE vd
vd_max(vd a, vd b)
{
#if SL_LANES == 16
    return (vd)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif SL_LANES == 8
    return (vd)_mm256_max_pd((__m256d)a, (__m256d)b);
#elif defined(__x86_64__)
    return (vd)_mm_max_pd((__m128d)a, (__m128d)b);
#else
    const vl first = (vl)(a > b);
    return (vd)(((vl)a & first) | ((vl)b & ~first));
#endif
}

/* Bit l of the result: lane l of the mask. */
SL_INLINE unsigned
vd_bits(vl mask)
{
#if SL_LANES == 16
    return (unsigned)_mm512_movepi64_mask((__m512i)mask);
#elif SL_LANES == 8
    return (unsigned)_mm256_movemask_pd((__m256d)mask);
#elif defined(__x86_64__)
    return (unsigned)_mm_movemask_pd((__m128d)mask);
#else
    unsigned bits = 0;
    for (int l = 0; l < SL_HALF; l++) {
        bits |= (mask[l] != 0 ? 1U : 0U) << l;
    }
    return bits;
#endif
}

/* Bit l: squared[l] <= bound[l]. */
static unsigned
space_within(const double *restrict squared, const double *restrict bound)
{
    unsigned bits = 0;

    SL_UNROLL
    for (int v = 0; v < SPACE_VECTORS; v++) {
        bits |= vd_bits(vd_load(squared + v * SL_HALF) <= vd_load(bound + v * SL_HALF)) << (v * SL_HALF);
    }
    return bits;
}

/* out[l] = squared distance of point q (coordinates SL_SPACE_BLOCK apart) to point l of the block; bit l of the result: it is <= bound.  Once none is, the
 * sums so far, which can only grow, are left in out. */
static unsigned
space_points(const double *restrict block, const double *restrict q, ptrdiff_t d, double bound, double *restrict out)
{
    const vd most = vd_all(bound);
    vd sum[SPACE_VECTORS];
    unsigned inside = 0;

    SL_UNROLL
    for (int v = 0; v < SPACE_VECTORS; v++) {
        sum[v] = vd_all(0.0);
    }
    for (ptrdiff_t begin = 0; begin < d; begin += SPACE_LOOK) {
        const ptrdiff_t end = sl_least(begin + SPACE_LOOK, d);
        for (ptrdiff_t j = begin; j < end; j++) {
            const vd x = vd_all(q[j * SL_SPACE_BLOCK]);
            SL_UNROLL
            for (int v = 0; v < SPACE_VECTORS; v++) {
                const vd t = vd_load(block + j * SL_SPACE_BLOCK + v * SL_HALF) - x;
                sum[v] += t * t;
            }
        }
        inside = 0;
        SL_UNROLL
        for (int v = 0; v < SPACE_VECTORS; v++) {
            inside |= vd_bits(sum[v] <= most) << (v * SL_HALF);
        }
        if (inside == 0) {
            break;
        }
    }
    SL_UNROLL
    for (int v = 0; v < SPACE_VECTORS; v++) {
        vd_store(out + v * SL_HALF, sum[v]);
    }
    return inside;
}

/* out[l] = squared distance of point l of the block to the box [low, high], side j at box[2 j], box[2 j + 1], or floor[l] where that is larger; bit l of
 * the result: it is <= bound[l].  Once none is, what was found so far, which can only grow, is left in out.  Rounding is monotone, so that the distance
 * never exceeds the computed distance to a point inside the box. */
static unsigned
space_box(const double *restrict block, const double *restrict box, ptrdiff_t d, const double *restrict floor,
          const double *restrict bound, double *restrict out)
{
    vd sum[SPACE_VECTORS];
    unsigned inside = 0;

    SL_UNROLL
    for (int v = 0; v < SPACE_VECTORS; v++) {
        sum[v] = vd_all(0.0);
    }
    for (ptrdiff_t begin = 0; begin < d; begin += SPACE_LOOK) {
        const ptrdiff_t end = sl_least(begin + SPACE_LOOK, d);
        for (ptrdiff_t j = begin; j < end; j++) {
            const vd low = vd_all(box[2 * j]), high = vd_all(box[2 * j + 1]);
            SL_UNROLL
            for (int v = 0; v < SPACE_VECTORS; v++) {
                const vd x = vd_load(block + j * SL_SPACE_BLOCK + v * SL_HALF);
                const vd t = vd_max(vd_max(low - x, x - high), vd_all(0.0));
                sum[v] += t * t;
            }
        }
        inside = 0;
        SL_UNROLL
        for (int v = 0; v < SPACE_VECTORS; v++) {
            const vd large = vd_max(sum[v], vd_load(floor + v * SL_HALF));
            vd_store(out + v * SL_HALF, large);
            inside |= vd_bits(large <= vd_load(bound + v * SL_HALF)) << (v * SL_HALF);
        }
        if (inside == 0) {
            break;
        }
    }
    return inside;
}
