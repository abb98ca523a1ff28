/* What transformers need beside products: normalisation of rows, attention.  float32, dense arrays.
 *
 * Results are bit-identical for every n_threads: each row is computed by one thread, in one way that no other row has a part in.  NaN and inf
 * propagate to the row they are in; a value that is NaN or inf may also reach causal queries before it (0 times NaN is NaN). */
#ifndef SL_TRANSFORMER_H
#define SL_TRANSFORMER_H

#include "sl_common.h"

/* Layer norm (centred) and RMS norm (not centred):
 *
 *   y[r,i] = (x[r,i] - m_r) / sqrt( mean_j (x[r,j] - m_r)^2 + eps ) weight[i] + bias[i]     m_r = mean_j x[r,j], or 0
 *
 * x (rows, n), n >= 1; weight, bias (n) or NULL; sums in double over fixed lanes.  y may be x.
 * SL_ERR_ARG: a negative size, n < 1, eps < 0, n_threads < 1. */
sl_status sl_norm_rows_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, double eps, int centred, const float *weight,
                           const float *bias, float *y, int n_threads);

/* Group norm: the mean and variance of each group of channels of each sample, then one factor and term per channel.
 *
 * x (batch, channels, n), groups divides channels; weight, bias (channels) or NULL.  Otherwise as above. */
sl_status sl_group_norm_f32(const float *x, ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t n, ptrdiff_t groups,
                            double eps, const float *weight, const float *bias, float *y, int n_threads);

/* Attention of each of `pairs` (samples times heads):
 *
 *   y[p,i,:] = sum_j w_ij v[p,j,:],   w_i = softmax_j( scale <q[p,i,:], k[p,j,:]> + bias[p % bias_pairs,i,j] )
 *
 * q (pairs, queries, width), k (pairs, keys, width), v (pairs, keys, depth), y (pairs, queries, depth); bias (bias_pairs, queries, keys) or NULL, bias_pairs
 * divides pairs.  k_step, v_step: floats from the keys (values) of one pair to those of the next, at least what a pair holds.  causal: query i looks at keys j <= i + keys - queries only; keys >= queries then.  y must overlap no input.
 * Allocates per thread one block of scores (at most 96 x keys), one pair's values transposed and the product's workspace.
 * SL_ERR_ARG: a negative size, no keys, a bias that does not divide, too few keys, n_threads < 1; SL_ERR_OVERFLOW; SL_ERR_NOMEM. */
typedef struct {
    ptrdiff_t pairs, queries, keys, width, depth, bias_pairs;
    ptrdiff_t k_step, v_step;
    float scale;
    int causal;
} sl_attention_shape;

sl_status sl_attention_f32(const sl_attention_shape *s, const float *q, const float *k, const float *v,
                           const float *bias, float *y, int n_threads);

#endif
