/* What the two paths of the convolution share.  Private to csrc/core. */
#ifndef SL_CONV_PRIVATE_H
#define SL_CONV_PRIVATE_H

#include "sl/sl_conv.h"
#include "sl_gemm_private.h"

/* All that follows from a shape. */
typedef struct {
    sl_conv_shape s;
    ptrdiff_t out_h, out_w, pixels; /* pixels = out_h * out_w */
    ptrdiff_t in_g, out_g;          /* channels of a group */
    ptrdiff_t taps, k, kblock;      /* k = in_g * taps */
    int depthwise;
} sl_conv_plan;

/* Arrays of one call. */
typedef struct {
    const float *x, *w, *packed, *bias, *addend;
    float *y;
    sl_activation activation;
} sl_conv_args;

sl_status sl_conv_plan_make(const sl_conv_shape *shape, sl_conv_plan *plan);
sl_status sl_conv_depthwise(const sl_conv_plan *plan, const sl_conv_args *args, int n_threads);
sl_status sl_conv_product(const sl_conv_plan *plan, const sl_conv_args *args, int n_threads);

#endif
