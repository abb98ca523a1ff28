/* Matrix products in float32: packed, cache-blocked, micro-kernels per instruction-set tier.
 *
 * Numerics, for every function here: K is cut into equal blocks of at most SL_GEMM_KC (the cut depends on k alone); inside a block each element
 * of C is one chain of multiply-adds in ascending order (fused in the FMA tiers, rounded twice in the baseline), and the block sums are added in
 * order.  An element therefore depends on its row of A and its row of B only: not on m, n, the number of threads, or whether operands were packed
 * beforehand.  It may differ in the last bits between tiers.  NaN and inf propagate as in IEEE arithmetic, to their row or column only. */
#ifndef SL_GEMM_H
#define SL_GEMM_H

#include "sl_common.h"
#include "sl_elementwise.h"

enum { SL_GEMM_KC = 320 };

/* C = A B^T for use inside another kernel's parallel region: serial, allocates nothing.
 *
 *   c[i,j] = sum_p a[i,p] b[j,p]        i < m, j < n, p < k
 *
 * a (m, k) with row distance lda >= k;  b (n, k) with row distance ldb >= k;  c (m, n) with row distance ldc >= n, written in full, must overlap
 * neither a nor b.  a and b may be the same array.  k = 0 gives zeros.
 * work: sl_gemm_nt_worksize(m, n, k) floats of the caller's, best from sl_alloc (64-byte aligned); one per thread.
 * O(m n k).  Cuts C into blocks itself: for best speed m and n are 100 or more, but any size works. */
void sl_gemm_nt_serial_f32(const float *a, ptrdiff_t lda, ptrdiff_t m, const float *b, ptrdiff_t ldb, ptrdiff_t n,
                           ptrdiff_t k, float *c, ptrdiff_t ldc, float *work);

/* Floats of workspace that sl_gemm_nt_serial_f32 needs; bounded whatever m, n, k are. */
ptrdiff_t sl_gemm_nt_worksize(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k);

/* Dense layer:
 *
 *   y[i,j] = act( bias[j] + addend[i,j] + sum_p x[i,p] w[j,p] )        i < m, j < n, p < k
 *
 * x (m, k), w (n, k), y (m, n) row-major and dense; bias (n) or NULL; addend (m, n) or NULL.  y is written in full and must overlap no input; only addend may
 * be y.  k = 0 leaves act(bias + addend).
 * packed: what sl_dense_pack_f32 made of w, or NULL: then w is read as it is, each weight once per 480 rows of x.  Packing beforehand pays from about 8 rows
 * on; results are the same bits.  The sum over the first block of K is stored with bias and addend, later blocks are added.
 * Allocates, without `packed`, the panels of one task per thread, and the last columns of a task where they fill no panel.
 * SL_ERR_ARG: a negative size, n_threads < 1, an unknown activation, or `packed` of another tier or shape; SL_ERR_OVERFLOW; SL_ERR_NOMEM. */
sl_status sl_dense_f32(const float *x, ptrdiff_t m, ptrdiff_t k, const float *w, ptrdiff_t n, const float *packed,
                       const float *bias, const float *addend, sl_activation activation, float *y, int n_threads);

/* Floats of the packed form of w (n, k), header included; depends on the active tier.  SL_ERR_ARG, SL_ERR_OVERFLOW. */
sl_status sl_dense_packed_size(ptrdiff_t n, ptrdiff_t k, ptrdiff_t *size);
sl_status sl_dense_pack_f32(const float *w, ptrdiff_t n, ptrdiff_t k, float *packed);

/* SL_OK if the buffer of `size` floats was packed by this tier for weights of this shape, else SL_ERR_ARG. */
sl_status sl_dense_packed_check(ptrdiff_t n, ptrdiff_t k, const float *packed, ptrdiff_t size);

#endif
