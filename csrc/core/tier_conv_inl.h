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

/* n floats, reading and writing no other. */
SL_INLINE void
copy_floats(float *dst, const float *src, ptrdiff_t n)
{
    ptrdiff_t i = 0;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        v_store(dst + i, v_load(src + i));
    }
    if (i < n && n >= SL_LANES) { /* the last vector overlaps the one before */
        v_store(dst + n - SL_LANES, v_load(src + n - SL_LANES));
        return;
    }
    if (n - i >= 4) {
        memcpy(dst + i, src + i, 4 * sizeof *dst);
        memcpy(dst + n - 4, src + n - 4, 4 * sizeof *dst);
        return;
    }
    for (; i < n; i++) {
        dst[i] = src[i];
    }
}

/* even[i] = src[2 i], odd[i] = src[2 i + 1] for whole vectors that cover i < n; odd may be NULL. */
SL_INLINE void
split_pairs(const float *src, ptrdiff_t n, float *even, float *odd)
{
    for (ptrdiff_t i = 0; i < n; i += SL_LANES) {
        const vf a = v_load(src + 2 * i), b = v_load(src + 2 * i + SL_LANES);
        v_store(even + i, SL_SHUFFLE(a, b, SL_EVEN));
        if (odd != NULL) {
            v_store(odd + i, SL_SHUFFLE(a, b, SL_ODD));
        }
    }
}

static void
pad_row(const float *row, ptrdiff_t width, ptrdiff_t start, ptrdiff_t step, ptrdiff_t phases, ptrdiff_t positions,
        float *line, float *dst)
{
    const ptrdiff_t needed = phases == 1 ? (positions - 1) * step + 1 : positions * step;
    const ptrdiff_t low = start < 0 ? sl_least(-start, needed) : 0, high = sl_least(width - start, needed);
    float *to = step == 1 ? dst : line;

    for (ptrdiff_t i = 0; i < low; i++) {
        to[i] = 0.0F;
    }
    if (high > low) {
        copy_floats(to + low, row + start + low, high - low);
    }
    for (ptrdiff_t i = high > low ? high : low; i < needed; i++) {
        to[i] = 0.0F;
    }
    if (step == 2) {
        split_pairs(line, positions, dst, phases > 1 ? dst + positions : NULL);
    } else if (step > 2) {
        for (ptrdiff_t f = 0; f < phases; f++) {
            for (ptrdiff_t i = 0; i < positions; i++) {
                dst[f * positions + i] = line[f + i * step];
            }
        }
    }
}
