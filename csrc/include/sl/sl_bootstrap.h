/* How firmly do a component's scores stand?  Bootstrap over its concept examples.
 *
 * Resample r of component k gives its m_k usable examples (sl_scores.h) the counts w of a multinomial draw: m_k draws with replacement.  Every
 * score is written in w and in inner products that are formed once per component, so that a resample costs O(m_k^2) whatever d is.  With
 * G_ij = <v_i, v_j>, U_ij = cos(v_i, v_j), b_i the weight of v_i in the concept vector (1; weights[i]; either divided by |v_i| if normalize):
 *
 *   clarity          (w'Uw - sum w_i^2) / ((sum w_i)^2 - sum w_i^2): pairs of different examples only.  A drawn twin is no evidence of
 *                    likeness; the form that counts it has the mean clarity + (1 - clarity) / m, this one has none of that excess.
 *   polysemanticity  1 - cos(c_0, c_1) with B_ab = sum over i in a, j in b of w_i w_j G_ij, cos = B_01 / sqrt(B_00 B_11).  The two groups are those
 *                    of all examples, moved by at most `steps` steps of two-means on the resample (0: kept).  Where a group has fewer than two
 *                    draws, as in sl_scores.h: 1 - mean of cos(mean row, v_i) over the first min(10, m_k) usable examples, weighted by w.
 *   cosine p         cos(sum w_i b_i v_i, t_p) = sum w_i b_i <v_i, t_p> / (|t_p| sqrt(sum w_i b_i w_j b_j G_ij)); t_p is held fixed.  A text
 *                    gives the interval of a label's score; the vector of the nearest other component gives that of redundancy GIVEN that
 *                    neighbour and its vector: the maximum over all components is not resampled, and the interval is too short by what
 *                    the neighbour's own examples leave open.
 *   mean v           sum w_i x_i / sum w_i over the examples whose number x_i is finite: any score that is a mean over examples (roles).
 *
 * The interval.  A resample holds about 63 % different examples, so that means of vectors scatter more and scores that are not linear in them
 * shift (cosines down, polysemanticity up): the plain percentile interval can miss the value it is meant for.  The quantiles
 * are therefore taken of the deviations from the resamples' own mean: value + quantile(score_r - mean_r(score_r)), linear between order
 * statistics, cut to the score's range.  It holds for the score that m examples give on average.  BCa is not used: its acceleration rests
 * on m leave-one-out values, and with m = 30 and groups that change abruptly these say little; its correction breaks down where all resamples
 * lie on one side of the value, which for cosines is common.
 *
 * Draw j of resample r of component k is a hash of (seed, first + k, r, j): nothing depends on threads or on how components are cut into
 * calls.  Results are bitwise equal for every n_threads and every instruction-set tier. */
#ifndef SL_BOOTSTRAP_H
#define SL_BOOTSTRAP_H

#include "sl_scores.h"

enum {
    SL_BOOTSTRAP_LEAST = 4, /* usable examples below which there is no interval: three give no picture of a spread */
    SL_BOOTSTRAP_FIELDS = 5 /* value, lower, upper, mean of the resamples, standard deviation of the resamples */
};

typedef struct {
    int resamples; /* R >= 2 */
    int steps;     /* >= 0: most steps of two-means per resample */
    double level;  /* in (0, 1): share of the deviations inside the interval */
    uint64_t seed;
    int64_t first; /* number of component 0, when components are cut into calls */
} sl_bootstrap_options;

/* weights     (K, m) finite and >= 0, or NULL: of the concept vector.
 * normalize   nonzero: the concept vector is the mean of unit rows.
 * clusters    (K, m) 0 or 1 per usable example, or -1 for "left out" (counts as 0); or NULL: polysemanticity becomes NaN.
 * targets     (T, d); target_ids (K, P) rows of it, -1 for none.
 * values      (K, V, m) numbers per example, not finite for none.  NULL where V = 0. */
typedef struct {
    const float *weights;
    int normalize;
    const int32_t *clusters;
    const float *targets;
    const int64_t *target_ids;
    ptrdiff_t T, P;
    const double *values;
    ptrdiff_t V;
} sl_bootstrap_scores;

/* out   (K, 2 + P + V, SL_BOOTSTRAP_FIELDS) written in full; order clarity, polysemanticity, cosines, means.  NaN where the score of all
 *       examples is undefined; lower and upper also where m_k < SL_BOOTSTRAP_LEAST or fewer than half of the resamples have the score; mean and
 *       deviation are over those that have it.
 * wins  (K, P) written in full: share of the resamples in which cosine p is the highest, the lowest p on ties; NaN for a target that is absent or
 *       unusable, and where there is no interval.
 * O(K ((m + P)^2 d + R m (m steps + P + V))); allocates n_threads ((m + P)^2 + 4 m^2 + R (2 + P + V)) doubles or a little more.
 * Nothing may overlap.  SL_ERR_ARG: see sl_examples_check; an option outside its range; a weight that is negative or not finite; a cluster above
 * 1; a target outside [-1, T); n_threads < 1.  SL_ERR_OVERFLOW, SL_ERR_NOMEM. */
sl_status sl_bootstrap_f32(const sl_examples *x, const sl_bootstrap_scores *scores, const sl_bootstrap_options *options,
                           double *out, double *wins, int n_threads);

#endif
