/* Pooling of pictures (planes, H, W) float32, planes = batch * channels. */
#ifndef SL_POOL_H
#define SL_POOL_H

#include "sl_common.h"

typedef struct {
    ptrdiff_t planes, height, width;
    ptrdiff_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w; /* >= 1 */
    ptrdiff_t top, left, bottom, right;                                       /* padding, >= 0 */
    int ceil_mode; /* the last window may reach beyond the padded picture, if it starts inside the picture or its padding before it */
    int count_include_pad; /* mean: padding counts in the divisor (what ceil mode adds beyond it never does) */
} sl_pool_shape;

typedef enum { SL_POOL_MAX = 0, SL_POOL_MEAN = 1 } sl_pool_kind;

/* SL_ERR_ARG: a size out of range, or windows that do not fit; SL_ERR_OVERFLOW: an array of this shape would not fit in memory. */
sl_status sl_pool_output_size(const sl_pool_shape *shape, ptrdiff_t *out_h, ptrdiff_t *out_w);

/* y[p,i,j] = maximum or mean of x[p, i sh + u dh - top, j sw + v dw - left] over u < kh, v < kw.
 * MAX: padding is -inf (also for a window that lies in it entirely); NaN wins.  MEAN: padding is 0, sums in double in (u, v) order, divided by
 * the number of taps inside the picture (or, with count_include_pad, inside the padded picture); 0 / 0 is NaN.
 * y (planes, H', W') written in full, no overlap.  Bit-identical for every n_threads.  Allocates n_threads padded planes for MAX.
 * SL_ERR_ARG, SL_ERR_OVERFLOW as above, SL_ERR_NOMEM. */
sl_status sl_pool2d_f32(const sl_pool_shape *shape, const float *x, sl_pool_kind kind, float *y, int n_threads);

/* y[p,i,j] = mean of x[p, floor(i H / h) : ceil((i + 1) H / h), floor(j W / w) : ceil((j + 1) W / w)], sums in double.
 * x (planes, H, W) with H, W >= 1, y (planes, h, w), no overlap.  SL_ERR_ARG: a negative size, H or W < 1, n_threads < 1. */
sl_status sl_adaptive_mean_f32(const float *x, ptrdiff_t planes, ptrdiff_t height, ptrdiff_t width, ptrdiff_t out_h,
                               ptrdiff_t out_w, float *y, int n_threads);

#endif
