/* Packing of picture patches into panels of B. */

/* dst [k][SL_NR] from runs of neighbouring columns: run r copies runs[r].length floats from runs[r].source + offsets[p] to column
 * runs[r].column of row p.  Runs are in column order.  Whole vectors are moved: up to SL_LANES - 1 floats behind a run are read, and written
 * where the next run or row (or the slack behind the panel) is written later. */
static void
pack_runs(const sl_run *runs, ptrdiff_t n_runs, const ptrdiff_t *offsets, ptrdiff_t k, float *dst)
{
    if (n_runs == 1 && runs[0].length == SL_NR) {
        const float *source = runs[0].source;
        for (ptrdiff_t p = 0; p < k; p++) {
            SL_UNROLL
            for (int j = 0; j < SL_NV; j++) {
                v_store(dst + p * SL_NR + j * SL_LANES, v_load(source + offsets[p] + j * SL_LANES));
            }
        }
        return;
    }
    for (ptrdiff_t p = 0; p < k; p++) {
        for (ptrdiff_t r = 0; r < n_runs; r++) {
            const float *source = runs[r].source + offsets[p];
            float *to = dst + p * SL_NR + runs[r].column;
            for (ptrdiff_t x = 0; x < runs[r].length; x += SL_LANES) {
                v_store(to + x, v_load(source + x));
            }
        }
    }
}

/* dst[i] = src[i * step] */
static void
copy_strided(const float *src, ptrdiff_t step, ptrdiff_t n, float *dst)
{
    if (step == 1) {
        for (ptrdiff_t i = 0; i < n; i++) {
            dst[i] = src[i];
        }
    } else if (step == 2) {
        for (ptrdiff_t i = 0; i < n; i++) {
            dst[i] = src[2 * i];
        }
    } else {
        for (ptrdiff_t i = 0; i < n; i++) {
            dst[i] = src[i * step];
        }
    }
}
