/* Redundancy: symmetric tiles with running maxima.  Contract: sl_cosine.h.
 *
 * A panel is a block of rows against all columns from the panel on.  Of its tiles, those right of the diagonal count twice: for their rows and, read
 * along columns, for the rows that these columns are.  Within a panel a column belongs to one tile and so to one thread, which may write its
 * maximum in place; the maxima of the panel's own rows are kept per thread and joined at the end. */
#include "sl/sl_cosine.h"

#include <math.h>

#include "sl/sl_gemm.h"
#include "sl_lens_private.h"

enum { ROWS = SL_REDUNDANCY_ROWS, COLS = 2 * SL_REDUNDANCY_ROWS };

typedef struct {
    float *tile, *work, *best;
    int64_t *nearest;
} panel_work;

ptrdiff_t
sl_redundancy_panels(ptrdiff_t n)
{
    return n / ROWS + (n % ROWS != 0);
}

/* (value, at) replaces (*best, *nearest) if it is higher, or equal with a lower index. */
static void
improve(float value, int64_t at, float *best, int64_t *nearest)
{
    if (value > *best || (value >= *best && at < *nearest)) {
        *best = value;
        *nearest = at;
    }
}

/* Maxima of `rows` rows over the columns j0 .. j0 + cols - 1 of the tile; across != 0: of these columns over the rows, too. */
static void
read_tile(const panel_work *w, ptrdiff_t i0, ptrdiff_t rows, ptrdiff_t j0, ptrdiff_t cols, int across, float *best,
          int64_t *nearest, const struct sl_lens_loops *loops)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        float *t = w->tile + i * COLS;
        float most = -INFINITY;
        ptrdiff_t at = 0;
        if (i0 + i >= j0 && i0 + i < j0 + cols) {
            t[i0 + i - j0] = -INFINITY;
        }
        const int reaches = loops->scan(t, best + j0, cols, &most);
        if (most >= w->best[i] && most > -INFINITY) {
            while (t[at] < most) {
                at++;
            }
            improve(most, j0 + at, w->best + i, w->nearest + i);
        }
        for (ptrdiff_t j = 0; across && reaches && j < cols; j++) {
            if (t[j] >= best[j0 + j]) {
                improve(t[j], i0 + i, best + j0 + j, nearest + j0 + j);
            }
        }
    }
}

static panel_work
work_of_thread(float *memory, ptrdiff_t stride, int64_t *indices, int thread)
{
    float *p = memory + thread * stride;

    return (panel_work){
        .best = p, .tile = p + ROWS, .work = p + ROWS + ROWS * COLS, .nearest = indices + thread * ROWS};
}

sl_status
sl_redundancy_panel_f32(const float *unit, ptrdiff_t n, ptrdiff_t d, ptrdiff_t panel, float *best, int64_t *nearest,
                        int n_threads)
{
    const struct sl_lens_loops *loops = sl_tier_get()->lens;
    const int threads = sl_threads(n_threads);
    const ptrdiff_t stride = ROWS + ROWS * COLS + sl_gemm_nt_worksize(ROWS, COLS, d), i0 = panel * ROWS,
                    rows = n - i0 < ROWS ? n - i0 : ROWS;
    float *memory = NULL;
    int64_t *indices = NULL;
    sl_status status = SL_ERR_NOMEM;

    if (n < 0 || d < 0 || panel < 0 || panel >= sl_redundancy_panels(n) || n_threads < 1) {
        return SL_ERR_ARG;
    }
    memory = sl_alloc(threads, (size_t)stride * sizeof *memory);
    indices = sl_alloc(threads * (ptrdiff_t)ROWS, sizeof *indices);
    if (memory == NULL || indices == NULL) {
        goto done;
    }
    for (int thread = 0; thread < threads; thread++) {
        const panel_work w = work_of_thread(memory, stride, indices, thread);
        for (ptrdiff_t i = 0; i < ROWS; i++) {
            w.best[i] = -INFINITY;
            w.nearest[i] = INT64_MAX;
        }
    }
    /* The first tile is the panel's own square, read along rows only; the rest starts behind it. */
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t tile = -1; tile < (n - i0 - rows + COLS - 1) / COLS; tile++) {
        const panel_work w = work_of_thread(memory, stride, indices, sl_thread_id());
        const ptrdiff_t j0 = tile < 0 ? i0 : i0 + rows + tile * COLS;
        const ptrdiff_t cols = tile < 0 ? rows : (n - j0 < COLS ? n - j0 : COLS);
        sl_gemm_nt_serial_f32(unit + i0 * d, d, rows, unit + j0 * d, d, cols, d, w.tile, COLS, w.work);
        read_tile(&w, i0, rows, j0, cols, tile >= 0, best, nearest, loops);
    }
    for (int thread = 0; thread < threads; thread++) {
        const panel_work w = work_of_thread(memory, stride, indices, thread);
        for (ptrdiff_t i = 0; i < rows; i++) {
            if (w.best[i] > -INFINITY) {
                improve(w.best[i], w.nearest[i], best + i0 + i, nearest + i0 + i);
            }
        }
    }
    status = SL_OK;
done:
    sl_free(indices);
    sl_free(memory);
    return status;
}

/* Fixed lanes, so that the order of the sum is the same everywhere. */
static double
dot(const float *a, const float *b, ptrdiff_t d)
{
    double lane[8] = {0.0}, total = 0.0;
    ptrdiff_t j = 0;

    for (; j + 8 <= d; j += 8) {
        for (int l = 0; l < 8; l++) {
            lane[l] += (double)a[j + l] * (double)b[j + l];
        }
    }
    for (int l = 0; j < d; j++, l++) {
        lane[l] += (double)a[j] * (double)b[j];
    }
    for (int l = 0; l < 8; l++) {
        total += lane[l];
    }
    return total;
}

sl_status
sl_redundancy_finish_f32(const float *x, ptrdiff_t n, ptrdiff_t d, const int64_t *index, ptrdiff_t found,
                         const int64_t *nearest, double *value, int64_t *partner, int n_threads)
{
    const int threads = sl_threads(n_threads);

    (void)threads; /* unused in a serial build */
    if (n < 0 || d < 0 || found < 0 || found > n || n_threads < 1) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        value[i] = (double)NAN;
        partner[i] = -1;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < found; i++) {
        if (nearest[i] >= 0) {
            const float *a = x + index[i] * d, *b = x + index[nearest[i]] * d;
            const double cosine = dot(a, b, d) / (sqrt(dot(a, a, d)) * sqrt(dot(b, b, d)));
            value[index[i]] = cosine > 1.0 ? 1.0 : (cosine < -1.0 ? -1.0 : cosine);
            partner[index[i]] = index[nearest[i]];
        }
    }
    return SL_OK;
}
