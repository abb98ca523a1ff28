/* Soft membership of points in the clusters of a condensed tree (McInnes, Healy, Astels, hdbscan; the form used by Vielhaben et al.,
 * arXiv 2412.06639).
 *
 * Of a point: c the node it falls out of, lam its lambda, D_s the distance to the nearest exemplar of selected node s = 1..K, and
 *
 *   u_s = 1/D_s, or DBL_MAX/K where D_s = 0, over their sum;    h_s = height[c, s], or lam where that is NaN.
 *
 *   SL_MEMBER_NEW_POINT    t_s = lmax(c) / (lmax(c) - h'_s), a denominator <= 0 being 1e-8, h' with lam rounded to float32;
 *                          v_s = sqrt(u_s) softmax(t)_s^2;       p = max_s h_s / (max(lam, lmax(s*)) + 1e-8)
 *   SL_MEMBER_ALL_POINTS   t_s = exp(-(lmax(c) + 1e-8) / h_s);
 *                          v_s = u_s softmax(t)_s;               p = max_s h_s / max(lam, lmax(s*))
 *
 *   P_s = p v_s / sum v,    s* = the first s with the largest h_s.
 *
 * lambda and lmax above `most` count as `most`; a ratio 0/0 is 0, and a row whose v are all 0 is 0.  K = 0 gives rows without entries. */
#ifndef SL_MEMBERSHIP_H
#define SL_MEMBERSHIP_H

#include "sl_hdbscan.h"

typedef enum { SL_MEMBER_NEW_POINT = 0, SL_MEMBER_ALL_POINTS = 1 } sl_member;

/* Exemplars packed for the search; concept k has rows [start[k], start[k + 1]) of x (start[K], d), at least one each.
 * SL_ERR_ARG: a concept without exemplars, K < 0 or d < 1; SL_ERR_NUMERIC: x is not finite; SL_ERR_OVERFLOW; SL_ERR_NOMEM. */
typedef struct sl_exemplars sl_exemplars;
sl_status sl_exemplars_new(const double *x, const int64_t *start, ptrdiff_t K, ptrdiff_t d, sl_exemplars **exemplars);
void sl_exemplars_free(sl_exemplars *exemplars);

typedef struct {
    sl_member variant;
    ptrdiff_t T;
    const double *height; /* (T, K) of sl_tree_heights */
    const double *lmax;   /* (T) */
    const double *top;    /* (K) lmax of the selected nodes */
    double most;
} sl_member_rules;

/* Rows [begin, end) of the points z (n, d): P (n, K) is double, or float where `single`; node (n), lambda (n).
 *
 * Distances are sums of squared differences in double, in four lanes: an exemplar is exactly at distance 0 from itself, and all tiers give the same bits.
 * float32 products only rule out exemplars that cannot be nearest, by a bound on their rounding; where they overflow, none is ruled out.
 * O((end - begin) d start[K]).  SL_ERR_ARG: a bad range, begin not a multiple of 16, a node outside [0, T), a negative lambda; SL_ERR_NUMERIC: z is
 * not finite; SL_ERR_OVERFLOW; SL_ERR_NOMEM. */
sl_status sl_membership(const sl_exemplars *exemplars, const double *z, ptrdiff_t n, const int64_t *node,
                        const double *lambda, const sl_member_rules *rules, ptrdiff_t begin, ptrdiff_t end, int single,
                        void *P, int n_threads);

#endif
