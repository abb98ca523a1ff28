/* What sl_rand.c and sl_rand_parts.c share: fixed-point sums and the packed form of the rows. */
#ifndef SL_RAND_PRIVATE_H
#define SL_RAND_PRIVATE_H

#include <math.h>

#include "sl/sl_rand.h"
#include "sl_tier.h"

enum { SL_RAND_BLOCK = 6 * SL_RAND_COLS }; /* columns of a block */

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

typedef float sl_four __attribute__((vector_size(16)));
typedef float sl_four_any __attribute__((vector_size(16), aligned(4), may_alias));
typedef double sl_two __attribute__((vector_size(16)));
#if defined(__clang__)
#define SL_FOUR(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SL_FOUR(a, b, i, j, k, l) __builtin_shuffle(a, b, (int32_t __attribute__((vector_size(16)))){i, j, k, l})
#endif

/* out[g][a][l] = p[row + g * width + l][a], zeros past n; half[g * width + l] = half that row's sum.  Four rows by four entries at a time: transposed in
 * registers, and sums that do not wait for each other; rows and width are multiples of four. */
static inline void
sl_rand_pack(const sl_memberships *rep, ptrdiff_t n, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t width,
             float *restrict out, float *restrict half)
{
    for (ptrdiff_t i = 0; i < rows; i += 4) {
        float *to = out + (i / width) * rep->k * width + i % width;
        const float *from[4], weight[4] = {row + i < n, row + i + 1 < n, row + i + 2 < n, row + i + 3 < n};
        const sl_four weights = {weight[0], weight[1], weight[2], weight[3]};
        sl_two low = {0.0, 0.0}, high = {0.0, 0.0};
        ptrdiff_t a = 0;

        for (ptrdiff_t l = 0; l < 4; l++) { /* a row past n reads another, times 0 */
            from[l] = rep->p + (row + i + l < n ? row + i + l : 0) * rep->k;
        }
        for (; a + 4 <= rep->k; a += 4) {
            const sl_four x = *(const sl_four_any *)(from[0] + a), y = *(const sl_four_any *)(from[1] + a);
            const sl_four z = *(const sl_four_any *)(from[2] + a), u = *(const sl_four_any *)(from[3] + a);
            const sl_four xy = SL_FOUR(x, y, 0, 4, 1, 5), zu = SL_FOUR(z, u, 0, 4, 1, 5);
            const sl_four yx = SL_FOUR(x, y, 2, 6, 3, 7), uz = SL_FOUR(z, u, 2, 6, 3, 7);
            const sl_four column[4] = {SL_FOUR(xy, zu, 0, 1, 4, 5), SL_FOUR(xy, zu, 2, 3, 6, 7),
                                       SL_FOUR(yx, uz, 0, 1, 4, 5), SL_FOUR(yx, uz, 2, 3, 6, 7)};
            for (int t = 0; t < 4; t++) {
                const sl_four value = column[t] * weights;
                *(sl_four_any *)(to + (a + t) * width) = value;
                low += (sl_two){(double)value[0], (double)value[1]};
                high += (sl_two){(double)value[2], (double)value[3]};
            }
        }
        for (; a < rep->k; a++) {
            const sl_four value = (sl_four){from[0][a], from[1][a], from[2][a], from[3][a]} * weights;
            *(sl_four_any *)(to + a * width) = value;
            low += (sl_two){(double)value[0], (double)value[1]};
            high += (sl_two){(double)value[2], (double)value[3]};
        }
        half[i] = (float)(0.5 * low[0]);
        half[i + 1] = (float)(0.5 * low[1]);
        half[i + 2] = (float)(0.5 * high[0]);
        half[i + 3] = (float)(0.5 * high[1]);
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
