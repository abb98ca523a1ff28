/* Inner loops of sl_knn.c and sl_mst.c, compiled once per tier; the double vectors are those of tier_lens_inl.h.  Blocks are [d][SL_SPACE_BLOCK] doubles; no sum is ever fused or
 * reordered, so every tier gives the same bits. */

typedef int64_t vl __attribute__((vector_size(4 * SL_LANES)));

enum { SPACE_VECTORS = SL_SPACE_BLOCK / SL_HALF, SPACE_LOOK = 8 };

/* Zero where a < 0, else a. */
SL_INLINE vd
vd_positive(vd a)
{
    return (vd)((vl)a & (a > 0.0));
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
            const vd t = vd_positive(low - x) + vd_positive(x - high); /* one of the two is zero */
            sum[v] += t * t;
        }
    }
    for (int v = 0; v < SPACE_VECTORS; v++) {
        vd_store(out + v * SL_HALF, sum[v]);
    }
}
