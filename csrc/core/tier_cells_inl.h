/* Inner loop of sl_concept_pairs.c, compiled once per tier. */
#include "sl_cells_private.h"

/* v[i] = p[i] + sign q[i], and the cell it lies in; see sl_cells_private.h. */
static void
cells_find(const float *restrict p, const float *restrict q, float sign, int fine, ptrdiff_t n, float *restrict v,
           int32_t *restrict cell)
{
    const vf factor = v_all(sign);
    const vi none = {0}, most = none + sl_cell_zero(fine);
    const int32_t lowest = sl_cell_lowest(fine) - 1;

    for (ptrdiff_t i = 0; i < n; i += SL_LANES) {
        const ptrdiff_t left = sl_least(SL_LANES, n - i);
        const int whole = left == SL_LANES;
        const vf a = whole ? v_load(p + i) : v_load_some(p + i, left),
                 b = whole ? v_load(q + i) : v_load_some(q + i, left);
        const vf sum = a + factor * b;
        const vi bits = (vi)sum, up = ((bits & INT32_MAX) >> (23 - fine)) - lowest;
        const vi above = up & (up > none);
        const vi away =
            (above & (above < most)) | (most & (above >= most)); /* what is larger, or NaN, stays in bounds */
        const vi negative = bits < none;
        const vi at = ((away ^ negative) - negative) + most;
        if (whole) {
            v_store(v + i, sum);
            memcpy(cell + i, &at, sizeof at);
        } else {
            v_store_some(v + i, left, sum);
            memcpy(cell + i, &at, (size_t)left * sizeof *cell);
        }
    }
}
