/* Elementwise work of layer-wise relevance propagation between the contractions, float32.
 *
 * Relevance may have several rows for each row of the values (several conditions on one sample share its forward run): R and g are (batch, repeats, n),
 * x and z (batch, n), all dense.  Results are written in full and bit-identical for every n_threads; nothing is allocated.  SL_ERR_ARG: a negative size,
 * n_threads < 1, an unknown part; SL_ERR_OVERFLOW. */
#ifndef SL_RELEVANCE_H
#define SL_RELEVANCE_H

#include "sl_common.h"
#include "sl_contract.h"

/* s[b,r,i] = R[b,r,i] / st(z[b,i]), or 0 where R or st(z) is exactly 0.  st(v) = v + eps sgn(v), or with clip sgn(v) max(|v|, eps);
 * sgn(v) = 1 for v >= 0 (and -0, NaN), else -1.  s may be R. */
sl_status sl_relevance_quotient_f32(const float *r, const float *z, ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n,
                                    float eps, int clip, float *s, int n_threads);

/* y[b,r,i] = scale part(x[b,i]) g[b,r,i] + sum[b,r,i], three roundings; part is SL_SEEN_PLAIN, SL_SEEN_POSITIVE or SL_SEEN_NEGATIVE; sum may be NULL.
 * y may be g or sum. */
sl_status sl_relevance_times_f32(const float *g, const float *x, ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n,
                                 sl_seen part, float scale, const float *sum, float *y, int n_threads);

/* above[b,r,i] = R[b,r,i] where z[b,i] > 0, below[b,r,i] where z[b,i] < 0, each 0 elsewhere (also where z is NaN).  *found: bit 0 is set where some value
 * of above is not 0, bit 1 likewise for below.  Neither may overlap anything. */
sl_status sl_relevance_by_sign_f32(const float *r, const float *z, ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n,
                                   float *above, float *below, int *found, int n_threads);

#endif
