/* What the two paths of the convolution share.  Private to csrc/core. */
#ifndef SL_CONV_PRIVATE_H
#define SL_CONV_PRIVATE_H

#include "sl/sl_contract.h"
#include "sl/sl_conv.h"
#include "sl_gemm_private.h"

/* All that follows from a shape. */
typedef struct {
    sl_conv_shape s;
    ptrdiff_t out_h, out_w, pixels; /* pixels = out_h * out_w */
    ptrdiff_t in_g, out_g;          /* channels of a group */
    ptrdiff_t taps, k, kblock;      /* k = in_g * taps */
    int depthwise;
    int flip; /* the taps run from the last to the first row and column of the window */
} sl_conv_plan;

/* Arrays of one call. */
typedef struct {
    const float *x, *w, *packed, *bias, *addend;
    float *y;
    sl_activation activation;
    sl_variant variant, part; /* of w where it is not packed (depthwise); of x */
    const sl_finish *finish;  /* offsets count from y */
} sl_conv_args;

sl_status sl_conv_plan_make(const sl_conv_shape *shape, sl_conv_plan *plan);
/* What follows from s, out_h and out_w: the rest of the plan. */
void sl_conv_plan_derive(sl_conv_plan *plan);
/* Packed weights of all groups, without a header: sl_conv_panel_floats of them. */
ptrdiff_t sl_conv_panel_floats(const sl_conv_plan *plan);
sl_status sl_conv_depthwise(const sl_conv_plan *plan, const sl_conv_args *args, int n_threads);
sl_status sl_conv_product(const sl_conv_plan *plan, const sl_conv_args *args, int n_threads);

/* Winograd's way, sl_winograd.h.  Whether weights were packed for it: their first SL_PACK_HEADER floats are read. */
int sl_winograd_packed(const float *packed);
/* The convolution, or its adjoint; args->packed with its header is checked here, the other arguments have been. */
sl_status sl_winograd_call(const sl_conv_shape *shape, int back, const sl_conv_args *args, int n_threads);

#endif
