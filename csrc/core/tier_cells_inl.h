/* Inner loop of sl_concept_pairs.c, compiled once per tier. */
#include "sl_cells_private.h"

/* v[i] = |p[i] + sign q[i]| + SL_CELL_SHIFT, and the cell of the sum; see sl_cells_private.h. */
static void
cells_find(const float *restrict p, const float *restrict q, float sign, int fine, ptrdiff_t n, float *restrict v,
           int32_t *restrict cell)
{
    const vf factor = v_all(sign), shift = v_all(SL_CELL_SHIFT);
    const vi none = {0}, most = none + sl_cell_zero(fine);
    const int32_t lowest = sl_cell_lowest(fine) - 1;

    for (ptrdiff_t i = 0; i < n; i += SL_LANES) {
        const ptrdiff_t left = sl_least(SL_LANES, n - i);
        const int whole = left == SL_LANES;
        const vf a = whole ? v_load(p + i) : v_load_some(p + i, left),
                 b = whole ? v_load(q + i) : v_load_some(q + i, left);
        const vf sum = a + factor * b;
        const vi bits = (vi)sum;
        const vf shifted = (vf)(bits & INT32_MAX) + shift;
        const vi up = ((vi)shifted >> (23 - fine)) - lowest;
        const vi above = up & ((bits & INT32_MAX) > none);
        const vi away =
            (above & (above < most)) | (most & (above >= most)); /* what is larger, or NaN, stays in bounds */
        const vi negative = bits < none;
        const vi at = ((away ^ negative) - negative) + most;
        if (whole) {
            v_store(v + i, shifted);
            memcpy(cell + i, &at, sizeof at);
        } else {
            v_store_some(v + i, left, shifted);
            memcpy(cell + i, &at, (size_t)left * sizeof *cell);
        }
    }
}

/* p, q = the values of two sparse columns at samples where both have one, in order; returns how many.  A column: a bit for each sample, how many bits lie
 * before each word, and the values by sample, which stay in the caches where whole columns would not. */
static ptrdiff_t
cells_both(const uint64_t *set_p, const int32_t *before_p, const float *held_p, const uint64_t *set_q,
           const int32_t *before_q, const float *held_q, ptrdiff_t words, float *restrict p, float *restrict q)
{
    ptrdiff_t found = 0;

    for (ptrdiff_t w = 0; w < words; w++) {
        const uint64_t of_p = set_p[w], of_q = set_q[w];
        for (uint64_t bits = of_p & of_q; bits != 0; bits &= bits - 1) {
            const uint64_t lower = (bits & (0 - bits)) - 1;
            p[found] = held_p[before_p[w] + __builtin_popcountll(of_p & lower)];
            q[found] = held_q[before_q[w] + __builtin_popcountll(of_q & lower)];
            found++;
        }
    }
    return found;
}
