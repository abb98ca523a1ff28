/* float32 products from bfloat16 tiles: splitting, error, and what happens at the edges of the number range.
 *
 * Splitting.  A float32 x with 2^-103 <= |x| < 2^128 (1 - 2^-9), or x = 0, is exactly
 *
 *   x = hi + mid + lo        hi = near(x), mid = near(x - hi), lo = x - hi - mid
 *
 * where near() rounds to the nearest bfloat16 (8 significant bits), ties away from zero; |mid| <= 2^-8 |hi| and |lo| <= 2^-8 |mid|.  24 bits are spent, so
 * lo needs no rounding.  Below 2^-103 parts fall under the smallest normal number, 2^-126, and tile instructions read those as 0; above, hi is inf.
 *
 * Product.  K is cut into the blocks of sl_gemm.h.  Inside a block, for each 32 terms, tile instructions add
 *
 *   hi lo, lo hi, mid mid, hi mid, mid hi, hi hi      (six products)        or        hi mid, mid hi, hi hi      (three)
 *
 * to a float32 tile, left operand first.  One instruction adds, for 16 pairs of terms, the chain of the even and the chain of the odd ones (fused, from 0) to
 * each other and the sum to the tile: nearest-even rounding, inputs and results below 2^-126 are 0, no exception is signalled and MXCSR is ignored.  Block sums
 * are added in order.  Six products leave out mid lo, lo mid and lo lo, together at most 2^-23 |x y|; the rest is rounding, a tenth as often as in a chain of
 * multiply-adds.  Measured on the products of VGG-16, ResNet-50 and ViT-B/16 (benchmarks/bench_split.py): 0.4 to 0.74 of the rms error of that chain.  Three
 * products leave out hi lo, lo hi and mid mid, at most 3 2^-16 |x y|: 15 to 46 times the rms error of the chain, the more the shorter the sum is.
 *
 * Range.  A row of an operand is plain, block by block of K, if its values are finite and the largest magnitude is 0 or in [2^-48, 2^48).  An element of the
 * result whose two rows are plain comes from tiles; sums cannot overflow, and what is flushed to 0 adds at most
 * 8 k 2^-126 (1 + max|a| + max|b|) to the error.  Every other element is the chain of multiply-adds of the float tiers, from the same float32 values (the packed
 * form keeps all their bits): NaN, inf, overflow and tiny numbers come out as there, and reach no other row or column.  The choice looks at an element's
 * own two rows only, so results depend neither on neighbours nor on how the work is cut, and are the same bits for every n_threads.
 *
 * What uses it, when a tier with tiles is active: dense layers, convolutions that are products (not depthwise), their adjoints, the parameter
 * contraction of dense layers, batched products.  Products of few rows too, although reading each weight once would be faster there: an element must not
 * depend on the batch it is computed in.  Everything else runs the float loops of the tier below. */
#ifndef SL_SPLIT_H
#define SL_SPLIT_H

#include "sl_common.h"

/* The three parts of each x[i], i < n, as bits of bfloat16.  Finite values of the range above are split exactly; below it the parts are those of float32 with
 * gradual underflow, cut to bfloat16.  Outputs must not overlap x. */
void sl_split_f32(const float *x, ptrdiff_t n, uint16_t *hi, uint16_t *mid, uint16_t *lo);

/* Test helper: bytes of float32 per second that one core splits in the active tier, for left operands (rows along K) and right ones (columns side by side),
 * from and to its own caches, measured for about `seconds` of wall clock each.  SL_ERR_ARG if the tier has no tiles; SL_ERR_NOMEM. */
sl_status sl_split_rates(double seconds, double *left, double *right);

#endif
