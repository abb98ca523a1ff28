/* Distances between single concepts of two representations, over all pairs of samples without forming them.
 * Source: Vielhaben et al., arXiv 2412.06639, eq. 4:
 *
 *   d(a, b) = 1/M sum_{i<j} 1/2 | |p_ia - p_ja| - |q_ib - q_jb| |,     M = n (n - 1) / 2.
 *
 * With | |x| - |y| | = |x + y| + |x - y| - |x| - |y| every term is a sum of absolute differences of one number per sample:
 *
 *   2 M d(a, b) = S(p_a + q_b) + S(p_a - q_b) - S(p_a) - S(q_b),      S(v) = sum_{i<j} |v_i - v_j|. */
#ifndef SL_CONCEPT_PAIRS_H
#define SL_CONCEPT_PAIRS_H

#include "sl_common.h"

/* A side of the comparison: K concepts of n samples. */
typedef struct {
    const float *
        values; /* (K, n), one row per CONCEPT (the transpose of proximities); in [0, 2], of which only the largest is checked */
    const float *sorted; /* (K, n), each row of `values` in ascending order */
    ptrdiff_t k;
} sl_concepts;

/* distance[a, b] = d(a, b) for begin <= a < end and all b;  lone[a] = d(p_a, 0) = S(p_a) / (2 M) for those a.
 *
 * p, q       both sides, of the same n samples.
 * distance   (p.k, q.k), lone (p.k): rows [begin, end) are written, so that a caller can stop or show progress between calls.
 *            Where p->values == q->values, the half b >= a is computed and mirrored, and d(a, a) = 0.
 *
 * Three routes to the same number.  Where hardly any sample has both proximities non-zero, the sums follow from the sorted non-zero entries of
 * each column and a correction over those samples: exact, O(n_p + n_q + n_both log n_both).  Elsewhere the sums p + q and p - q (rounded to float32) are
 * counted in cells that grow with the number, whose counts and sums give all pairs of different cells at once; a cell's own pairs are formed where
 * they could matter.  Columns that are mostly zero bring their cells along, so that only samples with both are moved, O(cells + n_both); others
 * are counted value by value, O(n) on average.  Error against the definition below 2e-8, as a rule below 1e-9.
 * Sums in double.  Each (a, b) belongs to one thread: bitwise equal for every n_threads.
 * Allocates O((k_p + k_q) + n_threads n), and for each column n / 8 bytes, 4 for each
 * non-zero entry, and 19 kB if it is mostly zero.
 * SL_ERR_ARG: n < 2 or n > 2^23, a negative k, an entry above 2, begin or end outside [0, p.k], n_threads < 1.  SL_ERR_NOMEM, SL_ERR_OVERFLOW. */
sl_status sl_concept_distances_f32(const sl_concepts *p, const sl_concepts *q, ptrdiff_t n, ptrdiff_t begin,
                                   ptrdiff_t end, double *restrict distance, double *restrict lone, int n_threads);

#endif
