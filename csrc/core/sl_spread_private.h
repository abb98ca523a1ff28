/* Sums of absolute differences of unsorted values, behind sl_concept_pairs.c. */
#ifndef SL_SPREAD_PRIVATE_H
#define SL_SPREAD_PRIVATE_H

#include "sl/sl_common.h"
#include "sl_cells_private.h"

enum { SL_SPREAD_FINE = 7 };

/* S of a sorted array. */
double sl_spread_sorted(const float *v, ptrdiff_t n);

/* What one thread needs at a time; cells are all 0 between calls. */
typedef struct sl_spread sl_spread;

/* `threads` of them for up to n values. */
sl_status sl_spread_new(ptrdiff_t n, int threads, sl_spread **out);
void sl_spread_free(sl_spread *all);

/* S of the m values p + sign q (each rounded to float32) and of `zeros` zeros, none of them beyond -most_below and most_above; t: whose workspace.
 * Up to FEW values exactly.  Of more, pairs of different cells (sl_cells_private.h) are exact from counts and sums; within a cell, numbers count as
 * evenly spread unless they are so many that this could matter: then they are gathered and treated exactly.  What remains is at most 2e-8 of the number
 * of pairs, and far less unless the values conspire.  0 <= p, q <= 2. */
double sl_spread_values(const sl_spread *all, ptrdiff_t t, const float *p, const float *q, ptrdiff_t m, ptrdiff_t zeros,
                        int sign, float most_below, float most_above);

/* The non-zero numbers of a column: ascending, and how they fill the cells (SL_SPREAD_CELLS of them; see sl_spread_count). */
typedef struct {
    const float *value;
    ptrdiff_t n;
    const int64_t *held;
} sl_spread_column;

enum { SL_SPREAD_CELLS = SL_CELL_OCTAVES << SL_SPREAD_FINE };

/* held (SL_SPREAD_CELLS): the cells of n numbers above 0. */
void sl_spread_count(const float *value, ptrdiff_t n, int64_t *held);

/* The same S of the sums p + sign q of two columns over `samples` samples where most numbers are 0, by what the columns' cells hold and the m samples
 * where neither is: their values are p and q.  P->n + Q->n < samples.  NaN where too many numbers share cells; then sl_spread_values will do. */
double sl_spread_of_columns(const sl_spread *all, ptrdiff_t t, const sl_spread_column *P, const sl_spread_column *Q,
                            const float *p, const float *q, ptrdiff_t m, ptrdiff_t samples, int sign);

#endif
