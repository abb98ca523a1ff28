/* Cosines between rows of matrices: whole, only the highest of each row, only the few highest.
 * Source: SemanticLens (probing, redundancy, labelling); the Python docstrings carry the formulas too.
 *
 * A row that is not finite or has length 0 has no direction and takes no part.  Unit rows are rounded to float32 and multiplied by
 * sl_gemm_nt_serial_f32: the cosine of two rows depends on these rows only, so that equal rows tie exactly, whatever the sizes, blocks and thread
 * counts; cosines carry an error of about 1e-7 and may differ in the last bits between instruction-set tiers. */
#ifndef SL_COSINE_H
#define SL_COSINE_H

#include "sl_common.h"

/* The rows of x (n, d) that have a direction, scaled to length 1, in order.
 * unit   (n, d): the first *found rows are written.       index  (n): their numbers in x.
 * O(n d); allocates n doubles.  SL_ERR_ARG: a negative size, n_threads < 1.  SL_ERR_NOMEM. */
sl_status sl_unit_rows_f32(const float *x, ptrdiff_t n, ptrdiff_t d, float *unit, int64_t *index, ptrdiff_t *found,
                           int n_threads);

/* out[i, j] = cos(a_i, b_j) for i < Q, j < K; NaN where a row has no direction.
 * a (Q, d), b (K, d); out (Q, K) written in full, must not overlap them.
 * O(Q K d); allocates (Q + K) d floats and a tile per thread.  SL_ERR_ARG: a negative size, n_threads < 1.  SL_ERR_NOMEM, SL_ERR_OVERFLOW. */
sl_status sl_cosine_f32(const float *a, ptrdiff_t Q, const float *b, ptrdiff_t K, ptrdiff_t d, float *out,
                        int n_threads);

/* Redundancy: for each of n unit rows the highest cosine to another row, in panels so that the caller can stop in between.
 *
 *   best[i] = max_{j != i} <u_i, u_j>,  nearest[i] = the lowest j that attains it
 *
 * Set best to -INFINITY and nearest to -1, then call for panel = 0 .. sl_redundancy_panels(n) - 1, in any order.  Panel p takes the block of
 * SL_REDUNDANCY_ROWS rows from there on against all rows not before it: each pair is multiplied once and counts for both its rows, and no n x n matrix
 * exists.  The pair (cosine, lowest index) is a maximum under a total order, which no order of evaluation can change: results are bitwise equal
 * for every n_threads although threads take tiles as they come.
 * unit (n, d), best (n), nearest (n).  O(n^2 d / 2) for all panels; allocates two tiles per thread.
 * SL_ERR_ARG: a negative size, panel out of range, n_threads < 1.  SL_ERR_NOMEM. */
enum { SL_REDUNDANCY_ROWS = 240 };
ptrdiff_t sl_redundancy_panels(ptrdiff_t n);
sl_status sl_redundancy_panel_f32(const float *unit, ptrdiff_t n, ptrdiff_t d, ptrdiff_t panel, float *best,
                                  int64_t *nearest, int n_threads);

/* value[index[i]] = cos(x[index[i]], x[index[nearest[i]]]) in double, clipped to [-1, 1], and partner[index[i]] = index[nearest[i]], for i < found;
 * NaN and -1 for all other rows, and where nearest[i] = -1.   x (n, d); value (n), partner (n) written in full. */
sl_status sl_redundancy_finish_f32(const float *x, ptrdiff_t n, ptrdiff_t d, const int64_t *index, ptrdiff_t found,
                                   const int64_t *nearest, double *value, int64_t *partner, int n_threads);

/* The `top` texts closest to each of K vectors, best first, the lowest number on ties.
 * x       (K, d).         unit, number (L, d), (L): texts as sl_unit_rows_f32 gives them.      top >= 1.
 * labels  (K, top): number[] of the texts; -1 where there are fewer, and for vectors without direction.
 * scores  (K, top): cosines; NaN where labels is -1.
 * Texts stream past blocks of vectors: no L x K matrix.  O(K L d); allocates a block of vectors and a tile per thread.
 * SL_ERR_ARG: a negative size, top < 1, n_threads < 1.  SL_ERR_NOMEM, SL_ERR_OVERFLOW. */
sl_status sl_top_labels_f32(const float *x, ptrdiff_t K, ptrdiff_t d, const float *unit, const int64_t *number,
                            ptrdiff_t L, ptrdiff_t top, int64_t *labels, float *scores, int n_threads);

#endif
