/* Convolutions of 3 x 3, stride 1 and dilation 1 by Winograd's minimal filtering F(2 x 2, 3 x 3): 16 products for 4 outputs instead of 36.
 *
 *   Y = A^T [ sum_c (G w[o,c] G^T) . (B^T d[c] B) ] A          . = elementwise;  d[c]: 4 x 4 values of x,  Y: 2 x 2 outputs
 *
 *          | 1  0 -1  0 |        | 1    0    0  |
 *   B^T =  | 0  1  1  0 |   G =  | 1/2  1/2  1/2|   A^T =  | 1  1  1  0 |
 *          | 0 -1  1  0 |        | 1/2 -1/2  1/2|          | 0  1 -1 -1 |
 *          | 0  1  0 -1 |        | 0    0    1  |
 *
 * (A. Lavin and S. Gray, Fast algorithms for convolutional neural networks, CVPR 2016, section 4.1.)  The same serves the adjoint with respect to the
 * input: it is the convolution of s with the kernels turned by 180 degrees, outputs and channels exchanged.
 *
 * A call takes this way where its `packed` weights were made here: sl_conv2d_f32, sl_conv_forward_f32 and sl_conv_adjoint_f32 tell by the header.
 *
 * Numerics: B^T d B in float32 (4 terms), G w G^T in double, rounded once; each of the 16 sums over c runs in ascending order in blocks of at most
 * 128 channels as in sl_gemm.h; A^T . A in float32; then bias, addend, activation, finish.  Measured against sum |w x| over the window of an output the
 * error is that of sl_conv.h within a factor below 2 (docs/decisions.md).  Each output reads its own window of x only: one whose window is zero is
 * exactly the bias, and NaN in x reaches exactly the outputs whose window covers it.  Taps of a window meet each other's weights on the way, though: inf in x
 * gives NaN, NaN or inf in w makes all outputs of its kernel NaN, magnitudes above FLT_MAX / 4 may overflow, and where every product w x of a window is
 * zero but neither w nor x is, the result is of the size of a rounding error.  Bit-identical for every n_threads, and for every batch a picture is
 * part of.
 *
 * Memory: the packed weights take 16 / 9 of w; a call allocates per thread 1 MB for transformed values (more only where one block of 64 tiles needs it:
 * 4 kB per channel) and 0.4 MB. */
#ifndef SL_WINOGRAD_H
#define SL_WINOGRAD_H

#include "sl_common.h"
#include "sl_contract.h"
#include "sl_conv.h"

/* 1 if a convolution of this shape (or, with back != 0, its adjoint) is faster this way, else 0, also for shapes that this way does not do.  Depends on
 * the shape alone, not on batch, threads, tier or machine: what a network computes does not depend on where it runs. */
int sl_winograd_pays(const sl_conv_shape *shape, int back);

/* Floats of the packed form.  SL_ERR_ARG: not a valid shape of 3 x 3, stride 1, dilation 1; SL_ERR_OVERFLOW. */
sl_status sl_winograd_packed_size(const sl_conv_shape *shape, int back, ptrdiff_t *size);

/* packed (sl_winograd_packed_size floats) from the variant of w (O, C / G, 3, 3); no overlap.  Depends on the weight's shape, groups, tier, variant
 * and direction only, so one packed form serves pictures of every size.  SL_ERR_NOMEM: a buffer of 27 kB. */
sl_status sl_winograd_pack_f32(const sl_conv_shape *shape, int back, const float *w, sl_variant variant, float *packed);

/* SL_OK if the buffer of `size` floats was packed here by this tier for weights of this shape, direction and variant, else SL_ERR_ARG. */
sl_status sl_winograd_packed_check(const sl_conv_shape *shape, int back, sl_variant variant, const float *packed,
                                   ptrdiff_t size);

#endif
