/* Concept vectors and scores of components, from the embeddings of their concept examples.
 * Source: SemanticLens (Nature Machine Intelligence 2025, doi 10.1038/s42256-025-01084-w); the Python docstrings carry the formulas too.
 *
 * Results are bitwise equal for every n_threads and every instruction-set tier: each component belongs to one thread, sums run in double in a fixed
 * order, and products of two floats are exact in double. */
#ifndef SL_SCORES_H
#define SL_SCORES_H

#include "sl_common.h"

/* K components with up to m examples each, as rows of a table.
 * table   (rows, d) row-major.
 * ids     (K, m) rows of table, -1 for an empty place; or NULL: component k's examples are rows k m .. k m + m - 1, and rows = K m.
 * counts  (K), 0 <= counts[k] <= m: only the first counts[k] places are read; or NULL for m everywhere.
 * An example is usable if its row is finite and not of length 0; m_k of them remain.  The others are left out of everything. */
typedef struct {
    const float *table;
    ptrdiff_t rows, d;
    const int64_t *ids;
    ptrdiff_t K, m;
    const int64_t *counts;
} sl_examples;

/* SL_ERR_ARG: a negative size, rows != K m without ids, an id outside [-1, rows), a count outside [0, m].  SL_ERR_OVERFLOW.  Reads ids and counts
 * once; the functions below call it themselves and write nothing when it fails. */
sl_status sl_examples_check(const sl_examples *x);

/* How alike are the examples of each component?  Mean cosine over all ordered pairs of different examples, with unit rows u_i = v_i / |v_i|:
 *
 *   clarity[k] = sum_{i != j} cos(v_i, v_j) / (m_k (m_k - 1)) = (|sum_i u_i|^2 - m_k) / (m_k (m_k - 1))
 *   weighted     (|sum_i w_i u_i|^2 - sum_i w_i^2) / ((sum_i w_i)^2 - sum_i w_i^2)
 *
 * weights  (K, m) finite and >= 0, or NULL.
 * clarity  (K) written in full, in [-1 / (m_k - 1), 1] without weights; NaN where m_k < 2 or fewer than two weights are positive.
 * used     (K) written in full: m_k.
 * The right-hand forms are used: no pairs.  O(K m d); allocates n_threads (m + d) doubles.
 * SL_ERR_ARG: see sl_examples_check; a weight that is negative or not finite; n_threads < 1.  SL_ERR_NOMEM. */
sl_status sl_clarity_f32(const sl_examples *x, const float *weights, double *clarity, int64_t *used, int n_threads);

/* vectors[k] = sum_i w_i y_i / sum_i w_i, y_i = v_i, or u_i if normalize; w_i = 1 without weights.
 * vectors  (K, d) written in full; NaN rows where no example is usable or the weights are all 0.
 * Sums in double, rounded once.  Otherwise as sl_clarity_f32. */
sl_status sl_concept_vectors_f32(const sl_examples *x, const float *weights, int normalize, float *vectors,
                                 int64_t *used, int n_threads);

typedef struct {
    int n_clusters; /* h >= 2 */
    int n_init;     /* >= 1: restarts */
    int max_iter;   /* >= 1: steps per restart */
    int exact; /* nonzero: try every split into two groups; h must be 2 and every count (m without counts) at most SL_EXACT_MAX */
    uint64_t seed;
} sl_poly_options;

enum { SL_EXACT_MAX = 20 };

/* Do the examples fall into groups that mean different things?  k-means with h clusters on the usable rows (Euclidean); with centres c_a
 *
 *   score[k] = 1 - mean over pairs a < b of cos(c_a, c_b);
 *   if a cluster has fewer than 2 members: 1 - mean over the first min(10, m_k) usable rows of cos(mean row, v_i).
 *
 * labels_in  (K, m) cluster of each example, below h; or NULL to cluster.  Usable examples with a negative label are left out.
 * score      (K) written in full: NaN where m_k < h or a centre has no direction (squared length at most 1e-13 of its members' mean); 0 exactly
 *            where all usable rows are equal.
 * labels     (K, m) written in full; -1 for what is left out, and where score is NaN for want of examples.
 * inertia    (K) written in full: squared distances of the usable rows to their centres, summed; NaN for want of examples.
 *
 * Everything after one Gram matrix G per component (double) is independent of d: with B_ab the sum of G over members of a and b,
 * cos(c_a, c_b) = B_ab / sqrt(B_aa B_bb), |v_i - c_a|^2 = G_ii - 2 sum_{j in a} G_ij / n_a + B_aa / n_a^2.  Starts are greedy k-means++ (2 + floor(ln h)
 * trials per centre); steps go on until no label changes; the least inertia wins, a later restart only if better by 1e-12 of the scatter.
 * Random number n of restart r is a hash of (seed, r, n): a component's result depends on its own examples and the options, on nothing else.
 * O(K m^2 (d + n_init steps)); exact: O(K 2^(m-1) m).  Allocates O(n_threads m (m + h)) doubles.
 * SL_ERR_ARG: see sl_examples_check; an option outside its range; a label >= h; n_threads < 1.  SL_ERR_NOMEM, SL_ERR_OVERFLOW. */
sl_status sl_polysemanticity_f32(const sl_examples *x, const int32_t *labels_in, const sl_poly_options *options,
                                 double *score, int32_t *labels, double *inertia, int n_threads);

#endif
