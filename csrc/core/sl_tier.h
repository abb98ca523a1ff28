/* The inner loops that are compiled once per instruction set.  tier_<name>.c defines SL_TIER_* and includes tier_body_inl.h, which fills one
 * sl_tier; the rest of the core reaches them through sl_tier_get().  Private to csrc/core. */
#ifndef SL_TIER_H
#define SL_TIER_H

#include "sl/sl_common.h"

enum { SL_RAND_ROWS = 64, SL_RAND_COLS = 16 }; /* pairs of a tile of sl_rand.c */

typedef struct {
    const char *name;
    int lanes; /* float32 lanes of a vector register */
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
