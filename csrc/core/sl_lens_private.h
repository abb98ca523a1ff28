/* What the kernels of sl_scores.h and sl_cosine.h share.  Private to csrc/core. */
#ifndef SL_LENS_PRIVATE_H
#define SL_LENS_PRIVATE_H

#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl/sl_cpu.h"
#include "sl/sl_scores.h"
#include "sl_tier.h"

enum {
    SL_GRAM_STEP = 8,   /* Gram matrices have row distances that are multiples of this */
    SL_GRAM_DEPTH = 64, /* dimensions per packed block */
};

/* Inner loops that are compiled per instruction set; all give the same bits in every tier. */
struct sl_lens_loops {
    /* sum_j x[j]^2 in 16 fixed lanes. */
    double (*square)(const float *x, ptrdiff_t d);
    /* sum[j] = sum_i scale[i] rows[i][j], i ascending. */
    void (*weighted_sum)(const float *const *rows, const double *scale, ptrdiff_t n, ptrdiff_t d, double *sum);
    /* g[i,j] = sum_p rows[i][p] rows[j][p], p ascending; g (n, ld), ld a multiple of SL_GRAM_STEP and at least n, columns from n on become 0.
     * pack: SL_GRAM_DEPTH * ld doubles. */
    void (*gram)(const float *const *rows, ptrdiff_t n, ptrdiff_t d, double *g, ptrdiff_t ld, double *pack);
    /* sums[c,i] = sum over j with labels[j] = c of g[j,i], j ascending; sums (h, ld). */
    void (*group_sums)(const double *g, ptrdiff_t n, ptrdiff_t ld, const int32_t *labels, ptrdiff_t h, double *sums);
    /* sum[i] = sum_j weight[j] g[rows[j], i], j ascending, i < ld. */
    void (*add_rows)(const double *g, const int32_t *rows, const double *weight, ptrdiff_t n, ptrdiff_t ld,
                     double *sum);
    /* The split of n rows with centred Gram matrix c into two groups of least inertia, as a bit mask of the second group, by trying all in Gray-code
     * order; ties within 1e-12 of the scatter to the earlier.  sums: ld doubles. */
    uint32_t (*best_split)(const double *c, ptrdiff_t n, ptrdiff_t ld, double scatter, double *sums);
    /* *most = max(*most, max_j t[j]); returns whether any t[j] >= best[j].  No NaN. */
    int (*scan)(const float *t, const float *best, ptrdiff_t n, float *most);
};

/* Usable rows of component k, in order: pointers, places 0..m-1, squared lengths (each of room m; places may be NULL).  Returns m_k. */
ptrdiff_t sl_usable_rows(const sl_examples *x, ptrdiff_t k, const struct sl_lens_loops *loops, const float **rows,
                         ptrdiff_t *places, double *squares);

/* A hash of (x, part): finaliser of splitmix64 (Steele et al. 2014), to be nested for more parts. */
static inline uint64_t
sl_mix64(uint64_t x, uint64_t part)
{
    x = (x ^ part) + UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static inline int
sl_thread_id(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

#endif
