/* The few closest texts of each vector.  Contract: sl_cosine.h.
 *
 * A thread takes a block of vectors, scales it, and lets all texts stream past in ascending order.  A tile's row is looked at only if its maximum beats
 * the worst score kept so far, which after a few tiles is rare. */
#include "sl/sl_cosine.h"

#include <math.h>

#include "sl/sl_gemm.h"
#include "sl_lens_private.h"

enum { ROWS = 120, COLS = 480 };

/* Keeps the best `top` of (score, label), best first; on ties what came first stays. */
static void
insert(float score, int64_t label, ptrdiff_t top, float *scores, int64_t *labels)
{
    ptrdiff_t at = top - 1;

    for (; at > 0 && scores[at - 1] < score; at--) {
        scores[at] = scores[at - 1];
        labels[at] = labels[at - 1];
    }
    scores[at] = score;
    labels[at] = label;
}

static void
read_row(const float *t, ptrdiff_t cols, const int64_t *number, ptrdiff_t top, float *scores, int64_t *labels)
{
    for (ptrdiff_t j = 0; j < cols; j++) {
        if (t[j] > scores[top - 1]) {
            insert(t[j], number[j], top, scores, labels);
        }
    }
}

/* Texts that were not found are marked with NaN; cosines are clipped. */
static void
finish(ptrdiff_t top, float *scores, const int64_t *labels)
{
    for (ptrdiff_t j = 0; j < top; j++) {
        scores[j] = labels[j] < 0 ? NAN : (scores[j] > 1.0F ? 1.0F : (scores[j] < -1.0F ? -1.0F : scores[j]));
    }
}

/* All texts against the rows x (rows, d); unit_x and tile are the thread's. */
static void
label_block(const float *x, ptrdiff_t rows, ptrdiff_t d, const float *unit, const int64_t *number, ptrdiff_t L,
            ptrdiff_t top, int64_t *labels, float *scores, float *unit_x, float *tile, float *work,
            const struct sl_lens_loops *loops)
{
    ptrdiff_t place[ROWS], used = 0;

    for (ptrdiff_t i = 0; i < rows; i++) {
        const double square = loops->square(x + i * d, d);
        for (ptrdiff_t j = 0; j < top; j++) {
            labels[i * top + j] = -1;
            scores[i * top + j] = -INFINITY;
        }
        if (square > 0.0 && square < (double)INFINITY) {
            const double scale = 1.0 / sqrt(square);
            for (ptrdiff_t j = 0; j < d; j++) {
                unit_x[used * d + j] = (float)(scale * (double)x[i * d + j]);
            }
            place[used++] = i;
        }
    }
    for (ptrdiff_t l = 0; used > 0 && l < L; l += COLS) {
        const ptrdiff_t cols = L - l < COLS ? L - l : COLS;
        sl_gemm_nt_serial_f32(unit_x, d, used, unit + l * d, d, cols, d, tile, COLS, work);
        for (ptrdiff_t i = 0; i < used; i++) {
            const float *t = tile + i * COLS;
            float *own = scores + place[i] * top, most = -INFINITY;
            loops->scan(t, t, cols, &most);
            if (most > own[top - 1]) {
                read_row(t, cols, number + l, top, own, labels + place[i] * top);
            }
        }
    }
    for (ptrdiff_t i = 0; i < rows; i++) {
        finish(top, scores + i * top, labels + i * top);
    }
}

sl_status
sl_top_labels_f32(const float *x, ptrdiff_t K, ptrdiff_t d, const float *unit, const int64_t *number, ptrdiff_t L,
                  ptrdiff_t top, int64_t *labels, float *scores, int n_threads)
{
    const struct sl_lens_loops *loops = sl_tier_get()->lens;
    const int threads = sl_threads(n_threads);
    ptrdiff_t size, block, stride;
    float *memory = NULL;

    if (K < 0 || d < 0 || L < 0 || top < 1 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    if (sl_mul(K, d, &size) < 0 || sl_mul(L, d, &size) < 0 || sl_mul(K, top, &size) < 0 ||
        sl_mul(ROWS, d, &block) < 0) {
        return SL_ERR_OVERFLOW;
    }
    block = (block + 15) & ~(ptrdiff_t)15;
    stride = block + ROWS * COLS + sl_gemm_nt_worksize(ROWS, COLS, d);
    memory = sl_alloc(threads, (size_t)stride * sizeof *memory);
    if (memory == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t k = 0; k < K; k += ROWS) {
        float *own = memory + sl_thread_id() * stride;
        label_block(x + k * d, K - k < ROWS ? K - k : ROWS, d, unit, number, L, top, labels + k * top, scores + k * top,
                    own, own + block, own + block + ROWS * COLS, loops);
    }
    sl_free(memory);
    return SL_OK;
}
