/* The inner loops that are compiled once per instruction set.  tier_<name>.c defines SL_TIER_* and includes tier_body_inl.h, which fills one
 * sl_tier; the rest of the core reaches them through sl_tier_get().  Private to csrc/core. */
#ifndef SL_TIER_H
#define SL_TIER_H

#include "sl/sl_common.h"
#include "sl/sl_elementwise.h"

/* What happens to a tile of C after its product with one block of K: the first block stores product + bias + addend, later ones add to C, the
 * last applies the activation. */
typedef struct {
    const float *bias_row; /* one per row of C, or NULL */
    const float *bias_col; /* one per column of the panel, or NULL; readable for the panel's full width */
    const float *addend;   /* laid out like C with row distance ld_addend, or NULL; may be C itself */
    ptrdiff_t ld_addend;
    int first, last;
    sl_activation activation;
} sl_epilogue;

enum { SL_RAND_ROWS = 64, SL_RAND_COLS = 16 }; /* pairs of a tile of sl_rand.c */

typedef struct {
    const char *name;
    int lanes;  /* float32 lanes of a vector register */
    int mr, nr; /* rows of a packed panel of A, columns of a packed panel of B */

    /* C (rows, cols) (+)= A B for one panel of B: a = panels [k][mr] of ceil(rows / mr), b = k rows at distance ldb, cols = nr or lanes. */
    void (*gemm_panel)(const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb, ptrdiff_t cols,
                       float *c, ptrdiff_t ldc, const sl_epilogue *e);
    /* dst [k][mr] (or [k][nr]) = transpose of src (rows <= mr, k), row distance ld; missing rows become 0. */
    void (*pack_a)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst);
    void (*pack_b)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst);

    /* See sl_rand.c: pair distances of a tile, and the sums of their absolute differences. */
    void (*rand_tile)(const float *restrict rows, const float *restrict panel, ptrdiff_t k,
                      const float *restrict half_row, const float *restrict half_col, float *restrict m);
    void (*rand_difference)(const float *restrict x, const float *restrict y, float *restrict col, float *restrict row);
} sl_tier;

extern const sl_tier sl_tier_baseline;
#if defined(__x86_64__)
extern const sl_tier sl_tier_avx2;
extern const sl_tier sl_tier_avx512;
#endif
#if defined(__aarch64__)
extern const sl_tier sl_tier_neon;
#endif

const sl_tier *sl_tier_get(void);

#endif
