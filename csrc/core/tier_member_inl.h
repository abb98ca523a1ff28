/* Inner loops of sl_membership.c, compiled once per tier.  Doubles go in four lanes everywhere, so that all tiers give the same bits. */

typedef double v4 __attribute__((vector_size(32)));
typedef int64_t v4i __attribute__((vector_size(32)));
typedef double v4_any __attribute__((vector_size(32), aligned(8), may_alias));

/* Bit l of the result: lane l of the mask. */
SL_INLINE unsigned
v_bits(vi mask)
{
#if SL_LANES == 16
    return (unsigned)_mm512_movepi32_mask((__m512i)mask);
#elif SL_LANES == 8
    return (unsigned)_mm256_movemask_ps((__m256)mask);
#elif defined(__x86_64__)
    return (unsigned)_mm_movemask_ps((__m128)mask);
#else
    unsigned bits = 0;
    for (int l = 0; l < SL_LANES; l++) {
        bits |= (mask[l] != 0 ? 1U : 0U) << l;
    }
    return bits;
#endif
}

enum { MEMBER_VECTORS = SL_SPACE_BLOCK / SL_LANES };

SL_INLINE double
member_apart(const double *restrict x, const double *restrict y, ptrdiff_t ld)
{
    v4 sum = {0.0, 0.0, 0.0, 0.0};

    for (ptrdiff_t j = 0; j < ld; j += 4) {
        const v4 t = *(const v4_any *)(x + j) - *(const v4_any *)(y + j);
        sum += t * t;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* least[l] and second[l]: the two smallest of half[e] + sum_j block[j][l] negated[e / 4][j][e % 4], numbers all of them; at[l]: e of the smallest. */
SL_INLINE void
member_two(const float *restrict block, const float *restrict negated, const float *restrict half, ptrdiff_t groups,
           ptrdiff_t d, vf low[MEMBER_VECTORS], vf second[MEMBER_VECTORS], vi at[MEMBER_VECTORS])
{
    SL_UNROLL
    for (int v = 0; v < MEMBER_VECTORS; v++) {
        low[v] = second[v] = v_all(HUGE_VALF);
        at[v] = (vi){0};
    }
    for (ptrdiff_t g = 0; g < groups; g++) {
        const float *e = negated + g * d * 4;
        vf acc[4][MEMBER_VECTORS];
        SL_UNROLL
        for (int i = 0; i < 4; i++) {
            SL_UNROLL
            for (int v = 0; v < MEMBER_VECTORS; v++) {
                acc[i][v] = v_all(half[4 * g + i]);
            }
        }
        for (ptrdiff_t j = 0; j < d; j++) {
            vf x[MEMBER_VECTORS];
            SL_UNROLL
            for (int v = 0; v < MEMBER_VECTORS; v++) {
                x[v] = v_load(block + j * SL_SPACE_BLOCK + v * SL_LANES);
            }
            SL_UNROLL
            for (int i = 0; i < 4; i++) {
                const vf y = v_all(e[4 * j + i]);
                SL_UNROLL
                for (int v = 0; v < MEMBER_VECTORS; v++) {
                    acc[i][v] = v_fma(x[v], y, acc[i][v]);
                }
            }
        }
        SL_UNROLL
        for (int i = 0; i < 4; i++) {
            const vi here = (vi){0} + (int32_t)(4 * g + i);
            SL_UNROLL
            for (int v = 0; v < MEMBER_VECTORS; v++) {
                const vf value = acc[i][v];
                const vi less = (vi)(value < low[v]);
                const vf loser = (vf)(((vi)low[v] & less) | ((vi)value & ~less));
                second[v] = rand_min(loser, second[v]);
                at[v] = (here & less) | (at[v] & ~less);
                low[v] = rand_min(value, low[v]);
            }
        }
    }
}

/* best[l] = squared distance of point l to the nearest of m exemplars, by differences in double.  float32 names the nearest; where its rounding,
 * below rate (base + reach[l]) plus what double itself rounds, leaves a doubt, all are measured.  x (16, ld), exemplars (m, ld), ld a multiple of 4,
 * padded with zeros. */
static void
member_nearest(const float *restrict block, const float *restrict negated, const float *restrict half, ptrdiff_t m,
               ptrdiff_t d, float rate, float base, const float *restrict reach, const double *restrict x,
               const double *restrict exemplars, ptrdiff_t ld, double *restrict best)
{
    vf low[MEMBER_VECTORS], second[MEMBER_VECTORS];
    vi at[MEMBER_VECTORS];
    int32_t nearest[SL_SPACE_BLOCK];
    unsigned doubt = 0;

    member_two(block, negated, half, (m + 3) / 4, d, low, second, at);
    SL_UNROLL
    for (int v = 0; v < MEMBER_VECTORS; v++) {
        const vf size = v_all(base) + v_load(reach + v * SL_LANES);
        const vf bound = low[v] + ((v_all(rate) + v_all(0x1p-46F) * size) * size + v_all(1e-38F));
        doubt |= v_bits(~(vi)(second[v] > bound)) << (v * SL_LANES);
        memcpy(nearest + v * SL_LANES, &at[v], sizeof at[v]);
    }
    for (int l = 0; l < SL_SPACE_BLOCK; l++) {
        best[l] = member_apart(x + l * ld, exemplars + nearest[l] * ld, ld);
    }
    for (; doubt != 0; doubt &= doubt - 1) {
        const int l = __builtin_ctz(doubt);
        for (ptrdiff_t e = 0; e < m; e++) {
            const double squared = member_apart(x + l * ld, exemplars + e * ld, ld);
            best[l] = squared < best[l] ? squared : best[l];
        }
    }
}

/* Roots of four numbers, in place: vectors wider than the tier's cannot be passed by value. */
SL_INLINE void
v4_root(v4 *x)
{
    SL_UNROLL
    for (int l = 0; l < 4; l++) {
        (*x)[l] = __builtin_sqrt((*x)[l]);
    }
}

/* Of squared distances u (K, padded to a multiple of 4 with inf), in place: 1 / distance or at_exemplar, over their sum. */
static void
member_nearness(double *restrict u, ptrdiff_t K, double at_exemplar)
{
    const v4 most = at_exemplar - (v4){0.0};
    v4 sum = {0.0};

    for (ptrdiff_t k = 0; k < K; k += 4) {
        v4 t = *(const v4_any *)(u + k);
        v4_root(&t);
        t = 1.0 / t;
        const v4i less = (v4i)(t < most);
        const v4 kept = (v4)(((v4i)t & less) | ((v4i)most & ~less));
        *(v4_any *)(u + k) = kept;
        sum += kept;
    }
    sum = ((sum[0] + sum[1]) + (sum[2] + sum[3])) - (v4){0.0};
    for (ptrdiff_t k = 0; k < K; k += 4) {
        *(v4_any *)(u + k) = *(const v4_any *)(u + k) / sum;
    }
}

/* u (padded with 0) becomes sqrt(u) soft^2 where `fresh`, else u soft; soft = own where the height is NaN, else e others.  Returns the sum, *highest the
 * largest of min(height, most) and lam (where NaN).  height and e are readable up to the padding. */
static double
member_weigh(double *restrict u, const double *restrict height, const double *restrict e, ptrdiff_t K, int fresh,
             double own, double others, double lam, double most, double *highest)
{
    const v4 zero = {0.0}, lams = lam - zero, mosts = most - zero, owns = own - zero;
    v4 sum = zero, high = zero;

    for (ptrdiff_t k = 0; k < K; k += 4) {
        const v4 table = *(const v4_any *)(height + k);
        v4 weight = *(const v4_any *)(u + k);
        const v4i is_own = (v4i)(table != table), within = (v4i)(table < mosts);
        const v4 bounded = (v4)(((v4i)table & within) | ((v4i)mosts & ~within));
        const v4 h = (v4)(((v4i)lams & is_own) | ((v4i)bounded & ~is_own));
        const v4 soft = (v4)(((v4i)owns & is_own) | ((v4i)(*(const v4_any *)(e + k) * others) & ~is_own));
        if (fresh) {
            v4_root(&weight);
        }
        const v4 v = fresh ? weight * (soft * soft) : weight * soft;
        const v4i higher = (v4i)(h > high);
        high = (v4)(((v4i)h & higher) | ((v4i)high & ~higher));
        *(v4_any *)(u + k) = v;
        sum += v;
    }
    *highest = 0.0;
    for (int l = 0; l < 4; l++) {
        *highest = high[l] > *highest ? high[l] : *highest;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
