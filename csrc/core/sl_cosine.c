/* Unit rows and the whole matrix of cosines.  Contract: sl_cosine.h. */
#include "sl/sl_cosine.h"

#include <math.h>

#include "sl/sl_gemm.h"
#include "sl_lens_private.h"

enum { TILE_ROWS = 240, TILE_COLS = 256 };

static void
scale_row(const float *row, ptrdiff_t d, double square, float *unit)
{
    const double scale = 1.0 / sqrt(square);

    for (ptrdiff_t j = 0; j < d; j++) {
        unit[j] = (float)(scale * (double)row[j]);
    }
}

sl_status
sl_unit_rows_f32(const float *x, ptrdiff_t n, ptrdiff_t d, float *unit, int64_t *index, ptrdiff_t *found, int n_threads)
{
    const struct sl_lens_loops *loops = sl_tier_get()->lens;
    const int threads = sl_threads(n_threads);
    double *squares = NULL;
    ptrdiff_t used = 0;

    (void)threads; /* unused in a serial build */
    if (n < 0 || d < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    squares = sl_alloc(n, sizeof *squares);
    if (squares == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < n; i++) {
        squares[i] = loops->square(x + i * d, d);
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        if (squares[i] > 0.0 && squares[i] < (double)INFINITY) {
            index[used++] = i;
        }
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < used; i++) {
        scale_row(x + index[i] * d, d, squares[index[i]], unit + i * d);
    }
    *found = used;
    sl_free(squares);
    return SL_OK;
}

/* The cosines of unit rows a (rows, d) and b (cols, d), sent to their places in out. */
static void
scatter_tile(const float *a, const int64_t *a_index, ptrdiff_t rows, const float *b, const int64_t *b_index,
             ptrdiff_t cols, ptrdiff_t d, float *out, ptrdiff_t K, float *tile, float *work)
{
    sl_gemm_nt_serial_f32(a, d, rows, b, d, cols, d, tile, TILE_COLS, work);
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t j = 0; j < cols; j++) {
            const float cosine = tile[i * TILE_COLS + j];
            out[a_index[i] * K + b_index[j]] = cosine > 1.0F ? 1.0F : (cosine < -1.0F ? -1.0F : cosine);
        }
    }
}

sl_status
sl_cosine_f32(const float *a, ptrdiff_t Q, const float *b, ptrdiff_t K, ptrdiff_t d, float *out, int n_threads)
{
    const int threads = sl_threads(n_threads);
    const ptrdiff_t work = sl_gemm_nt_worksize(TILE_ROWS, TILE_COLS, d), per_thread = TILE_ROWS * TILE_COLS + work;
    float *left = NULL, *right = NULL, *tiles = NULL;
    int64_t *left_index = NULL, *right_index = NULL;
    ptrdiff_t size, found_left = 0, found_right = 0;
    sl_status status = SL_ERR_NOMEM;

    if (Q < 0 || K < 0 || d < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    if (sl_mul(Q, K, &size) < 0 || sl_mul(Q, d, &size) < 0 || sl_mul(K, d, &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    left = sl_alloc(Q * d, sizeof *left);
    right = sl_alloc(K * d, sizeof *right);
    left_index = sl_alloc(Q, sizeof *left_index);
    right_index = sl_alloc(K, sizeof *right_index);
    tiles = sl_alloc(threads, (size_t)per_thread * sizeof *tiles);
    if (left == NULL || right == NULL || left_index == NULL || right_index == NULL || tiles == NULL) {
        goto done;
    }
    status = sl_unit_rows_f32(a, Q, d, left, left_index, &found_left, n_threads);
    if (status == SL_OK) {
        status = sl_unit_rows_f32(b, K, d, right, right_index, &found_right, n_threads);
    }
    if (status != SL_OK) {
        goto done;
    }
    for (ptrdiff_t i = 0; i < Q * K; i++) {
        out[i] = NAN;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t j = 0; j < found_right; j += TILE_COLS) {
        float *tile = tiles + sl_thread_id() * per_thread;
        const ptrdiff_t cols = found_right - j < TILE_COLS ? found_right - j : TILE_COLS;
        for (ptrdiff_t i = 0; i < found_left; i += TILE_ROWS) {
            const ptrdiff_t rows = found_left - i < TILE_ROWS ? found_left - i : TILE_ROWS;
            scatter_tile(left + i * d, left_index + i, rows, right + j * d, right_index + j, cols, d, out, K, tile,
                         tile + TILE_ROWS * TILE_COLS);
        }
    }
done:
    sl_free(tiles);
    sl_free(right_index);
    sl_free(left_index);
    sl_free(right);
    sl_free(left);
    return status;
}
