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

/* out[l] = squared distance of point q (coordinates SL_SPACE_BLOCK apart) to point l of the block.  Once all 16 partial sums exceed `bound`,
 * the sums so far, which can only grow, are left in out. */
static void
space_points(const double *restrict block, const double *restrict q, ptrdiff_t d, double bound, double *restrict out)
{
    vd sum[SPACE_VECTORS];

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
        if (end < d) {
            vl inside = sum[0] <= bound;
            for (int v = 1; v < SPACE_VECTORS; v++) {
                inside |= sum[v] <= bound;
            }
            int64_t any = 0;
            for (int l = 0; l < SL_HALF; l++) {
                any |= inside[l];
            }
            if (any == 0) {
                break;
            }
        }
    }
    for (int v = 0; v < SPACE_VECTORS; v++) {
        vd_store(out + v * SL_HALF, sum[v]);
    }
}

/* out[l] = squared distance of point l of the block to the box [low, high], side j at box[2 j], box[2 j + 1].  Rounding is monotone, so that
 * it never exceeds the computed distance to a point inside the box. */
static void
space_box(const double *restrict block, const double *restrict box, ptrdiff_t d, double *restrict out)
{
    vd sum[SPACE_VECTORS];

    for (int v = 0; v < SPACE_VECTORS; v++) {
        sum[v] = vd_all(0.0);
    }
    for (ptrdiff_t j = 0; j < d; j++) {
        const vd low = vd_all(box[2 * j]), high = vd_all(box[2 * j + 1]);
        SL_UNROLL
        for (int v = 0; v < SPACE_VECTORS; v++) {
            const vd x = vd_load(block + j * SL_SPACE_BLOCK + v * SL_HALF);
            const vd t = vd_max(vd_max(low - x, x - high), vd_all(0.0));
            sum[v] += t * t;
        }
    }
    for (int v = 0; v < SPACE_VECTORS; v++) {
        vd_store(out + v * SL_HALF, sum[v]);
    }
}
