/* The three contractions of a linear operation, float32: forward, adjoint, parameter; for dense layers, convolutions and batched matrix products.
 *
 * L_V is the operation without its bias, V the weights W seen through a variant that is formed while they are packed and never stored:
 *
 *   forward     z = L_V(x) + b                  dense: z[i,j] = b[j] + sum_p x[i,p] V[j,p];  convolution: the sum of sl_conv.h
 *   adjoint     g = L_V^T(s)                    <s, L_V(x)> = <L_V^T(s), x> for every x;  g has the shape of x, s that of z
 *   parameter   F = d <s, L_W(x)> / dW          F has the shape of W; summed over the batch
 *
 * Before the sum the operand x (or s) may be replaced by a part of it, and what comes out may be worked on while it is in the cache (sl_finish).
 *
 * Numerics: as sl_gemm.h and sl_conv.h; the order of the terms is (output, kernel row, kernel column) in the adjoint of a convolution, (picture,
 * pixel) in its parameter form.  Bit-identical for every n_threads; an element of z or g does not depend on the batch it is computed in.  Values
 * that lie outside a picture count as 0 in x and s; the adjoint leaves products with such zeros in, so that a weight that is NaN or inf spreads there.
 *
 * Everywhere: arrays are dense and row-major unless strides are given, results are written in full and must overlap no input unless the text says so.
 * SL_ERR_ARG: a size out of range, n_threads < 1, an unknown choice; SL_ERR_OVERFLOW; SL_ERR_NOMEM.  A refused call writes nothing. */
#ifndef SL_CONTRACT_H
#define SL_CONTRACT_H

#include "sl_common.h"
#include "sl_conv.h"

/* What is put in place of a number w, elementwise; w+ = max(w, 0), w- = min(w, 0); NaN stays NaN except in SL_SEEN_ONE.  For x and s those that keep 0
 * at 0 (all but SL_SEEN_ONE). */
typedef enum {
    SL_SEEN_PLAIN = 0,         /* w */
    SL_SEEN_MAGNITUDE = 1,     /* |w| */
    SL_SEEN_POSITIVE = 2,      /* w+ */
    SL_SEEN_NEGATIVE = 3,      /* w- */
    SL_SEEN_SQUARE = 4,        /* w^2 */
    SL_SEEN_ONE = 5,           /* 1 */
    SL_SEEN_MORE_POSITIVE = 6, /* w + gamma w+ */
    SL_SEEN_MORE_NEGATIVE = 7, /* w + gamma w- */
} sl_seen;

typedef struct {
    sl_seen seen;
    float gamma; /* of the last two */
} sl_variant;

/* Elementwise work on a result z, in this order; pointers may be NULL, and then the step is left out.  All arrays are laid out like the result and
 * none may overlap it.
 *
 *   v = z + addend
 *   v = numerator / st(v)        st(v) = v + eps sgn(v), or with clip sgn(v) max(|v|, eps);  sgn(v) = 1 for v >= 0 (and -0, NaN), else -1
 *   v = part(factor) v
 *   v = scale v
 *   v = v + sum
 *   v = v where 0 < mask < below, else 0      (below = inf: the derivative of max(., 0) at the mask's values) */
typedef struct {
    const float *addend, *numerator, *factor, *sum, *mask;
    sl_variant part;
    float eps, scale, below;
    int clip;
} sl_finish;

/* --- dense: x (m, k), w (n, k), z and s (m, n), bias (n) or NULL, finish NULL or like the result */
sl_status sl_dense_forward_f32(const float *x, ptrdiff_t m, ptrdiff_t k, const float *w, ptrdiff_t n,
                               sl_variant variant, sl_variant part, const float *bias, const sl_finish *finish,
                               float *z, int n_threads);
/* g[i,p] = sum_j part(s[i,j]) V[j,p];  up to 8 rows read each weight once, in its own order, without packing. */
sl_status sl_dense_adjoint_f32(const float *s, ptrdiff_t m, ptrdiff_t n, const float *w, ptrdiff_t k,
                               sl_variant variant, sl_variant part, const sl_finish *finish, float *g, int n_threads);
/* f[j,p] = sum_i s[i,j] x[i,p] */
sl_status sl_dense_parameter_f32(const float *s, ptrdiff_t m, ptrdiff_t n, const float *x, ptrdiff_t k, float *f,
                                 int n_threads);

/* --- convolution: shape, x, w, bias as in sl_conv.h; s and z (B, O, H', W')
 * Forward of V and part(x).  packed: what sl_winograd_pack_f32 made of w for this variant, and then the sums are those of sl_winograd.h; or what
 * sl_conv_forward_pack_f32 made of it, or NULL: then the weights are packed for this call, and the sums are those of sl_conv.h either way. */
sl_status sl_conv_forward_f32(const sl_conv_shape *shape, const float *x, const float *w, const float *packed,
                              sl_variant variant, sl_variant part, const float *bias, const sl_finish *finish, float *z,
                              int n_threads);

/* packed (sl_conv_packed_size floats, > 0) from the variant of w; no overlap. */
sl_status sl_conv_forward_pack_f32(const sl_conv_shape *shape, const float *w, sl_variant variant, float *packed);
/* SL_OK if the buffer of `size` floats was packed by this tier for weights of this shape and variant, here or in sl_winograd.h, else SL_ERR_ARG. */
sl_status sl_conv_forward_packed_check(const sl_conv_shape *shape, sl_variant variant, const float *packed,
                                       ptrdiff_t size);

/* g[b,c,y,x] = sum over the (o,u,v,i,j) with y = i sh + u dh - top, x = j sw + v dw - left of part(s[b,o,i,j]) V[o,c,u,v].
 *
 * A convolution of stride (sh, sw) is walked back as sh * sw convolutions of stride 1, one for each remainder of (y + top, x + left), whose kernels
 * are the taps that reach it, in reverse; their results are interleaved.  No product with the zeros between strided positions is formed.
 * packed: what sl_conv_adjoint_pack_f32 made of w for this shape and variant, or NULL: then the weights are packed for this call; or what
 * sl_winograd_pack_f32 made of them, and then the sums are those of sl_winograd.h.
 * Allocates, beside one tile's patches per thread, the picture-sized results of the remainders where a stride is above 1. */
sl_status sl_conv_adjoint_f32(const sl_conv_shape *shape, const float *s, const float *w, const float *packed,
                              sl_variant variant, sl_variant part, const sl_finish *finish, float *g, int n_threads);
/* Floats of the packed form, 0 where packing brings nothing (depthwise); depends on weight shape, groups, stride, dilation, padding, tier. */
sl_status sl_conv_adjoint_packed_size(const sl_conv_shape *shape, ptrdiff_t *size);
sl_status sl_conv_adjoint_pack_f32(const sl_conv_shape *shape, const float *w, sl_variant variant, float *packed);
/* SL_OK if the buffer of `size` floats was packed by this tier for weights of this shape, stride, dilation, padding and variant, else SL_ERR_ARG. */
sl_status sl_conv_adjoint_packed_check(const sl_conv_shape *shape, sl_variant variant, const float *packed,
                                       ptrdiff_t size);

/* f[o,c,u,v] = sum_{b,i,j} s[b,o,i,j] x[b, g C/G + c, i sh + u dh - top, j sw + v dw - left] */
sl_status sl_conv_parameter_f32(const sl_conv_shape *shape, const float *s, const float *x, float *f, int n_threads);

/* f[c] = sum_{b,p} s[b,c,p] x[b,c,p], or of s alone where x is NULL, in double;  s, x (batch, channels, n): gradients of bias, scale and shift. */
sl_status sl_channel_sum_f32(const float *s, const float *x, ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t n, float *f,
                             int n_threads);

/* --- batched products, for attention and its adjoints
 *
 *   c[o,i,r,q] = scale * sum_p a[o,i,r,p] b[o,i,p,q]        o < outer, i < inner, r < m, q < n, p < k
 *
 * Element (r, p) of matrix (o, i) lies at o * outer + i * inner + r * row + p, or, transposed, at o * outer + i * inner + p * row + r.  Strides are in
 * floats; 0 repeats a matrix.  c is never transposed, and its matrices and rows must not overlap each other nor a or b.  k = 0 gives zeros. */
typedef struct {
    ptrdiff_t outer, inner, row;
    int transposed;
} sl_strides;

sl_status sl_matmul_f32(ptrdiff_t outer, ptrdiff_t inner, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                        sl_strides a_strides, const float *b, sl_strides b_strides, float scale, float *c,
                        sl_strides c_strides, int n_threads);

#endif
