/* Two-dimensional convolution (cross-correlation) of float32 pictures, NCHW.
 *
 *   y[b,o,i,j] = act( bias[o] + addend[b,o,i,j] + sum_{c,u,v} w[o,c,u,v] x[b, g C/G + c, i sh + u dh - top, j sw + v dw - left] ),   g = floor(o G / O)
 *
 * with x = 0 outside the picture.  Two paths, chosen by the shape: an implicit product of matrices (the patches of one tile at a time are packed
 * straight from the picture, never the whole picture's), and direct sums for depthwise convolution.
 *
 * Numerics: the sum over (c, u, v) runs in that order, cut into equal blocks by the shape of the kernel alone, one chain of multiply-adds per
 * block (fused in the FMA tiers).  bias and addend are added to the first block's sum.  An output depends on its own patch only: bit-identical for every
 * number of threads and for every batch a picture is part of.  Taps outside the picture count as products with 0, so a weight that is NaN or inf
 * gives NaN there; NaN in x reaches exactly the outputs whose patch covers it. */
#ifndef SL_CONV_H
#define SL_CONV_H

#include "sl_common.h"
#include "sl_elementwise.h"

typedef struct {
    ptrdiff_t batch, channels, height, width;             /* x (B, C, H, W) */
    ptrdiff_t outputs, kernel_h, kernel_w;                /* w (O, C / G, kh, kw) */
    ptrdiff_t stride_h, stride_w, dilation_h, dilation_w; /* >= 1 */
    ptrdiff_t top, left, bottom, right;                   /* padding, >= 0 */
    ptrdiff_t groups;                                     /* G, divides C and O */
} sl_conv_shape;

/* Height and width of the output.  SL_ERR_ARG: a size out of the ranges above, groups that do not divide, a kernel that reaches beyond the padded
 * picture.  SL_ERR_OVERFLOW: an array of this shape would not fit in memory. */
sl_status sl_conv_output_size(const sl_conv_shape *shape, ptrdiff_t *out_h, ptrdiff_t *out_w);

/* Floats of the packed form of the weights, header included, or 0 where packing brings nothing (depthwise).  Depends on the weight's shape, groups and
 * the active tier; batch, picture, stride and padding do not matter. */
sl_status sl_conv_packed_size(const sl_conv_shape *shape, ptrdiff_t *size);

/* packed (sl_conv_packed_size floats, > 0) from w (O, C / G, kh, kw); no overlap. */
sl_status sl_conv_pack_f32(const sl_conv_shape *shape, const float *w, float *packed);

/* SL_OK if the buffer of `size` floats was packed by this tier for weights of this shape, here or in sl_winograd.h, else SL_ERR_ARG. */
sl_status sl_conv_packed_check(const sl_conv_shape *shape, const float *packed, ptrdiff_t size);

/* The convolution.  x (B, C, H, W), w, bias (O) or NULL, addend (B, O, H', W') or NULL, y (B, O, H', W') written in full.
 * packed: what sl_conv_pack_f32 made of w, or NULL: then w is packed for this call (cost about one pass over w per call); or what
 * sl_winograd_pack_f32 made of it, and then numerics, NaN and memory are those of sl_winograd.h.
 * y may be addend, and must overlap nothing else.  Allocates per thread: one tile's patches, below 2 MB for the usual shapes.
 * SL_ERR_ARG as above, n_threads < 1, or `packed` of another tier or shape; SL_ERR_OVERFLOW; SL_ERR_NOMEM.  A refused call writes nothing. */
sl_status sl_conv2d_f32(const sl_conv_shape *shape, const float *x, const float *w, const float *packed,
                        const float *bias, const float *addend, sl_activation activation, float *y, int n_threads);

#endif
