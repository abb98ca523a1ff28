/* Rows of the poolings: a window's columns are combined first (vertically, over whole rows), then its rows. */

/* m[i] = max(m[i], x[i]), NaN wins */
static void
row_max(const float *x, ptrdiff_t n, float *m)
{
    ptrdiff_t i = 0;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        const vf v = v_load(x + i), top = v_load(m + i);
        v_store(m + i, v_select((v > top) | (v != v), v, top));
    }
    for (; i < n; i++) {
        m[i] = x[i] > m[i] || x[i] != x[i] ? x[i] : m[i];
    }
}

/* m[i] = max(m[i], x[i * step]), NaN wins */
static void
row_max_strided(const float *x, ptrdiff_t step, ptrdiff_t n, float *m)
{
    if (step == 1) {
        row_max(x, n, m);
    } else if (step == 2) {
        for (ptrdiff_t i = 0; i < n; i++) {
            const float v = x[2 * i], top = m[i];
            m[i] = ((v > top) | (v != v)) ? v : top;
        }
    } else {
        for (ptrdiff_t i = 0; i < n; i++) {
            const float v = x[step * i], top = m[i];
            m[i] = ((v > top) | (v != v)) ? v : top;
        }
    }
}

/* sum[i] += x[i] */
static void
row_sum(const float *x, ptrdiff_t n, double *sum)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        sum[i] += (double)x[i];
    }
}
