/* What sl_rand.c and sl_rand_parts.c share: fixed-point sums and the packed form of the rows. */
#ifndef SL_RAND_PRIVATE_H
#define SL_RAND_PRIVATE_H

#include <math.h>

#include "sl/sl_rand.h"
#include "sl_tier.h"

/* Fixed-point units in 1: the largest power of two for which M terms of at most 1 fit in 62 bits, and at most 2^40. */
static inline double
sl_rand_unit(ptrdiff_t n)
{
    const double pairs = 0.5 * (double)n * (double)(n - 1);
    const int bits = 62 - (int)ceil(log2(pairs + 1.0));

    return ldexp(1.0, bits < 40 ? bits : 40);
}

static inline int64_t
sl_rand_fixed(double x, double unit)
{
    return (int64_t)llrint(x * unit);
}

/* out[g][a][l] = p[row + g * width + l][a], zeros past n; half[g * width + l] = half that row's sum.  Four rows at a time, whose sums do not wait for
 * each other; rows and width are multiples of four. */
static inline void
sl_rand_pack(const sl_memberships *rep, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t width,
             float *restrict out, float *restrict half)
{
    for (ptrdiff_t i = 0; i < rows; i += 4) {
        float *to = out + (i / width) * rep->k * width + i % width;
        const float *from[4], weight[4] = {row + i < n, row + i + 1 < n, row + i + 2 < n, row + i + 3 < n};
        double sum[4] = {0.0, 0.0, 0.0, 0.0};

        for (ptrdiff_t l = 0; l < 4; l++) { /* a row past n reads another, times 0 */
            from[l] = rep->p + (row + i + l < n ? row + i + l : 0) * rep->k;
        }
        for (ptrdiff_t a = 0; a < rep->k; a++) {
            for (int l = 0; l < 4; l++) {
                const float value = from[l][a] * weight[l];
                to[a * width + l] = value;
                sum[l] += (double)value;
            }
        }
        for (int l = 0; l < 4; l++) {
            half[i + l] = (float)(0.5 * sum[l]);
        }
    }
}

/* Pairs of the tile that do not exist (past n, or not i < j) get distance 0 in every representation. */
static inline void
sl_rand_mask(float *restrict m, ptrdiff_t n, ptrdiff_t row, ptrdiff_t col)
{
    for (ptrdiff_t i = 0; i < SL_RAND_ROWS; i++) {
        for (ptrdiff_t j = 0; j < SL_RAND_COLS; j++) {
            if (row + i >= n || col + j >= n || row + i >= col + j) {
                m[i * SL_RAND_COLS + j] = 0.0f;
            }
        }
    }
}

#endif
