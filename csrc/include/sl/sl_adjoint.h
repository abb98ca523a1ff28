/* Adjoints of elementwise work and pooling, float32: the transposed Jacobian times a cotangent s.
 *
 * Arrays are dense, results are written in full and bit-identical for every n_threads.  SL_ERR_ARG: a size out of range, n_threads < 1, an unknown
 * choice; SL_ERR_OVERFLOW. */
#ifndef SL_ADJOINT_H
#define SL_ADJOINT_H

#include "sl_common.h"
#include "sl_elementwise.h"
#include "sl_pool.h"

/* g[i] = act'(x[i]) s[i], i < n;  g may be s.  `saved` is the activation's result y for RELU (s where y > 0), RELU6 (s where 0 < y < 6), SIGMOID (y (1 - y) s),
 * HARDSIGMOID (s / 6 where 0 < y < 1) and TANH ((1 - y^2) s), and its input x for the others.  At the corners the derivative is that of the flat side, for
 * HARDSWISH (2 x + 3) / 6 in -3 < x < 3. */
sl_status sl_activate_adjoint_f32(const float *saved, const float *s, ptrdiff_t n, sl_activation activation, float *g,
                                  int n_threads);

/* Adjoint of sl_pool2d_f32.  MAX: each s goes to the first tap, in (u, v) order, that holds its window's maximum (a window that lies in the padding: to
 * none; a NaN is a maximum); x (planes, H, W) is read.  MEAN: s divided by the window's divisor goes to every tap inside the picture; x may be NULL.
 * g (planes, H, W), s (planes, H', W').  Sums run in the order of the windows. */
sl_status sl_pool2d_adjoint_f32(const sl_pool_shape *shape, const float *x, const float *s, sl_pool_kind kind, float *g,
                                int n_threads);

/* Adjoint of sl_adaptive_mean_f32: s (planes, h, w) -> g (planes, H, W). */
sl_status sl_adaptive_mean_adjoint_f32(const float *s, ptrdiff_t planes, ptrdiff_t height, ptrdiff_t width,
                                       ptrdiff_t out_h, ptrdiff_t out_w, float *g, int n_threads);

#endif
