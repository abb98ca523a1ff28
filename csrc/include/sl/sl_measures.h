/* What comparisons of two representations need that grows with the square of the number of samples or of features: cross products of
 * features, and passes over all pairs of rows that never hold an n x n matrix.
 *
 * Products of rows are float32 (see sl_gemm.h: an element depends on its two rows only), everything summed over pairs is double or a 64-bit
 * integer, collected in an order that does not depend on n_threads: results are bitwise equal for every number of threads. */
#ifndef SL_MEASURES_H
#define SL_MEASURES_H

#include "sl_common.h"

/* Rows [begin, end) of out[i,j] = sum_t a[t,i] b[t,j]: a (n, p), b (n, q), out (p, q), row-major, out overlaps neither.  Where a == b, half is
 * computed and mirrored: then the rows must be asked for in ascending order.  begin is a multiple of SL_CROSS_STEP, end too or p.
 * Double throughout; the sum over t runs in blocks of fixed length, so an element depends on its two columns only.  NaN and inf propagate.
 * O(n p q).  SL_ERR_ARG: a negative size, a bad range, n_threads < 1; SL_ERR_OVERFLOW; SL_ERR_NOMEM. */
enum { SL_CROSS_STEP = 96 };
sl_status sl_cross_f64(const double *a, const double *b, ptrdiff_t n, ptrdiff_t p, ptrdiff_t q, ptrdiff_t begin,
                       ptrdiff_t end, double *out, int n_threads);

/* Rows packed for products of all pairs: two copies of x (n, d).  SL_ERR_ARG: n < 2, d < 1, n > INT32_MAX / 2; SL_ERR_NUMERIC: x is not finite;
 * SL_ERR_OVERFLOW; SL_ERR_NOMEM.  *gram is NULL after an error. */
typedef struct sl_gram sl_gram;
sl_status sl_gram_new(const float *x, ptrdiff_t n, ptrdiff_t d, int n_threads, sl_gram **gram);
void sl_gram_free(sl_gram *gram);

/* The passes below visit the pairs i < j of block rows [begin, end) of sl_gram_blocks(n): the caller may stop between calls.  The value of a pair
 * is <x_i, x_j>, or max(0, |x_i|^2 + |x_j|^2 - 2 <x_i, x_j>) where `distance` is set.
 * All return SL_ERR_ARG for a bad range, n_threads < 1, or two grams of different n; SL_ERR_NOMEM. */
ptrdiff_t sl_gram_blocks(ptrdiff_t n);

/* Equal bins of [low, high]; values outside count in the first or the last. */
typedef struct {
    int distance;
    double low, high;
    ptrdiff_t bins; /* 1 .. 2^24 */
} sl_gram_grid;

/* count[b] += pairs whose value lies in bin b. */
sl_status sl_gram_count(const sl_gram *gram, const sl_gram_grid *grid, ptrdiff_t begin, ptrdiff_t end, int64_t *count,
                        int n_threads);

/* *sum += sum over pairs of score_x[bin of the pair in x] score_y[bin in y]; score_x (grid_x->bins), score_y (grid_y->bins).  Row i of y stands for
 * row i of x. */
sl_status sl_gram_score(const sl_gram *x, const sl_gram_grid *grid_x, const float *score_x, const sl_gram *y,
                        const sl_gram_grid *grid_y, const float *score_y, ptrdiff_t begin, ptrdiff_t end, double *sum,
                        int n_threads);

/* Gaussian kernels k = exp(-rate_x |x_i - x_j|^2), l = exp(-rate_y |y_i - y_j|^2) over pairs i < j:
 * sums (3) += (sum k l, sum k^2, sum l^2);  rows_x (n), rows_y (n) += sum over the other rows of k and of l, in units of 1 / SL_GRAM_UNIT. */
#define SL_GRAM_UNIT 1099511627776.0 /* 2^40 */
sl_status sl_gram_gauss(const sl_gram *x, double rate_x, const sl_gram *y, double rate_y, ptrdiff_t begin,
                        ptrdiff_t end, double *sums, int64_t *rows_x, int64_t *rows_y, int n_threads);

/* The k other rows with the largest inner products, exactly: float32 products choose a few more than k candidates, whose products are then formed in
 * double from u (n, d), of which x must be the float32 rounding; where rounding could have hidden a better row, all of the row's products are.
 *
 *   sl_near_new, sl_near_step over all block rows, sl_near_finish.
 *
 * index, value (n, k): largest first, equal values by the lower index.  Double products have 16 fixed lanes: the same bits in every tier.
 * *searched counts the rows that were searched in full.  SL_ERR_ARG: k < 1 or k > n - 1. */
typedef struct sl_near sl_near;
sl_status sl_near_new(const sl_gram *gram, ptrdiff_t k, int n_threads, sl_near **near);
sl_status sl_near_step(sl_near *near, ptrdiff_t begin, ptrdiff_t end);
sl_status sl_near_finish(sl_near *near, const double *u, ptrdiff_t begin, ptrdiff_t end, int32_t *index, double *value,
                         int64_t *searched);
void sl_near_free(sl_near *near);

#endif
