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

/* out[g][a][l] = p[row + g * width + l][a], zeros past n; half[g * width + l] = half that row's sum. */
static inline void
sl_rand_pack(const sl_memberships *rep, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t width,
             float *restrict out, float *restrict half)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        float *column = out + (i / width) * rep->k * width + i % width;
        const float *source = rep->p + (row + i) * rep->k;
        const int inside = row + i < n;
        double sum = 0.0;

        for (ptrdiff_t a = 0; a < rep->k; a++) {
            const float value = inside ? source[a] : 0.0f;
            column[a * width] = value;
            sum += (double)value;
        }
        half[i] = (float)(0.5 * sum);
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
