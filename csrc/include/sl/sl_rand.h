/* The generalized Rand index of soft clusterings: how differently do representations judge which pairs of samples belong together?
 * Source: Huellermeier, Rifqi, Henzgen, Senge, IEEE Trans. Fuzzy Systems 20(3), 2012; used on concept proximities by Vielhaben et al.,
 * arXiv 2412.06639, eqs. 2-3.
 *
 * Representation r has memberships P_r (n, K_r): row i holds the proximities of sample i to its K_r concepts, all >= 0.  For a pair i < j
 *
 *   m_r(i,j) = 1/2 sum_a |P_r[i,a] - P_r[j,a]| = 1/2 (s_i + s_j) - sum_a min(P_r[i,a], P_r[j,a]),   s_i = sum_a P_r[i,a].
 *
 * The right-hand form is computed: two vector instructions an entry instead of three, and no n x n matrix.
 *
 * Sums over pairs are collected as 64-bit fixed-point numbers.  Integers add in any order to the same bits, so results do not depend on
 * n_threads; the step is 2^-60 of the largest possible sum, far below the float32 rounding of a single m.  The distributions' sums are of whole steps of
 * 2^-30, downwards. */
#ifndef SL_RAND_H
#define SL_RAND_H

#include "sl_common.h"

enum { SL_RAND_BINS = 4096 }; /* of the pair-distance distributions, over [0, 1] */

/* One representation, read-only. */
typedef struct {
    const float *p; /* (n, k) row-major */
    ptrdiff_t k;
} sl_memberships;

/* What a pass over all pairs collects; every pointer is the caller's, the arrays are written in full.  NULL where a result is not wanted. */
typedef struct {
    double *
        mean_difference; /* (R, R), symmetric: mean over pairs of |m_r - m_s|; the discordance d, so that 1 - d is the index */
    double *mean_distance; /* (R): mean over pairs of m_r */
    double *
        row_difference; /* (R(R-1)/2, n), pairs r < s in row order: mean over j != i of |m_r - m_s|(i,j), for the jackknife error */
    int64_t *bin_count; /* (R, SL_RAND_BINS): pairs of the sampled blocks with m_r in [b, b+1) / SL_RAND_BINS */
    double *bin_sum;    /* (R, SL_RAND_BINS): sum of their m_r */
} sl_rand_result;

/* Passes over all n (n - 1) / 2 pairs once, for all R representations together, restricted to block rows [begin, end) of
 * sl_rand_blocks(n): the caller may stop, show progress, or share the work out between calls.
 *
 * sums       (sl_rand_sums_size(R, n)) int64, zeroed by the caller before the first call; calls add to it.
 * bin_every  distributions are filled from every bin_every-th block of pairs, 1 for all of them, 0 for none.
 * Entries must be finite, >= 0, with row sums <= 1 (not checked here).  O(n^2 sum K) in all.
 * SL_ERR_ARG: R < 1, n < 2, a negative k, begin or end outside [0, sl_rand_blocks(n)], bin_every < 0, n_threads < 1.
 * SL_ERR_NOMEM, SL_ERR_OVERFLOW. */
sl_status sl_rand_accumulate(const sl_memberships *reps, ptrdiff_t R, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                             int bin_every, int with_rows, int64_t *sums, int n_threads);

/* Number of block rows of n samples. */
ptrdiff_t sl_rand_blocks(ptrdiff_t n);

/* Length of `sums`, or -1 if it does not fit. */
ptrdiff_t sl_rand_sums_size(ptrdiff_t R, ptrdiff_t n, int with_rows);

/* Turns the sums of a complete pass into means.  SL_ERR_ARG as above. */
sl_status sl_rand_finish(const int64_t *sums, ptrdiff_t R, ptrdiff_t n, int with_rows, const sl_rand_result *result);

/* Additive parts of the discordance of two representations, restricted to block rows [begin, end) of sl_rand_blocks(n):
 *
 *   parts[a] += sum s_ij |P[i,a] - P[j,a]|, a < K_P;   parts[K_P + b] += sum s_ij |Q[i,b] - Q[j,b]|,   s_ij = sign(m_P(i,j) - m_Q(i,j)),
 *
 * in units of 1 / sl_rand_part_unit(n): with all block rows, half of (sum of the first K_P - sum of the rest) over the number of pairs is d.
 * Same conditions, errors and cost as sl_rand_accumulate, times about three; any n_threads gives the same bits. */
sl_status sl_rand_parts(const sl_memberships *p, const sl_memberships *q, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                        int64_t *parts, int n_threads);
double sl_rand_part_unit(ptrdiff_t n);

/* The same means from pairs drawn at random, with replacement: draws [begin, end), a draw being the function of (seed, its number) alone.
 *
 * sums       (R(R-1)/2, 2): sum of |m_r - m_s| and of its square, pairs r < s in row order, and
 * bin_count  (R, SL_RAND_BINS), bin_sum (R, SL_RAND_BINS) as in sl_rand_result; all are added to, sums and bin_sum in units of 2^-30.
 * At most 2^32 draws in all.  O(draws (sum K + R^2)).  SL_ERR_ARG: R < 1, n < 2 or n >= 2^32, a negative k, a bad range,
 * n_threads < 1; SL_ERR_NOMEM. */
sl_status sl_rand_draw(const sl_memberships *reps, ptrdiff_t R, ptrdiff_t n, uint64_t seed, ptrdiff_t begin,
                       ptrdiff_t end, int64_t *sums, int64_t *bin_count, int64_t *bin_sum, int n_threads);

/* The two samples of a draw, i != j, each pair equally likely (up to n / 2^64). */
void sl_rand_pair(uint64_t seed, uint64_t draw, ptrdiff_t n, ptrdiff_t *i, ptrdiff_t *j);

#endif
