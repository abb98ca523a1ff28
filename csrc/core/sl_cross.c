/* Cross products of features in double.  Contract: sl_measures.h.  A task is a rectangle of the result; it packs its columns of a and b, block of rows by
 * block of rows, and never leaves the second-level cache. */
#include "sl/sl_measures.h"

#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"

enum { ROWS = SL_CROSS_STEP, COLUMNS = 192, DEPTH = 128 }; /* multiples of every tier's cross_rows and cross_columns */

typedef struct {
    const double *a, *b;
    ptrdiff_t n, p, q;
    double *out;
    const sl_tier *tier;
} job;

/* to: panels [depth][width] of columns [first, first + count) of x (n, ld), zeros beyond `ld`. */
static void
pack(const double *x, ptrdiff_t ld, ptrdiff_t from, ptrdiff_t depth, ptrdiff_t first, ptrdiff_t count, ptrdiff_t width,
     double *to)
{
    for (ptrdiff_t c = 0; c < count; c += width) {
        const ptrdiff_t there = sl_min(width, ld - first - c > 0 ? ld - first - c : 0);
        for (ptrdiff_t t = 0; t < depth; t++) {
            double *row = to + c * depth + t * width;
            const double *source = x + (from + t) * ld + first + c;
            for (ptrdiff_t j = 0; j < width; j++) {
                row[j] = j < there ? source[j] : 0.0;
            }
        }
    }
}

static void
run_task(const job *w, ptrdiff_t i0, ptrdiff_t j0, double *left, double *right, double *c)
{
    const ptrdiff_t mr = w->tier->cross_rows, nr = w->tier->cross_columns;
    const ptrdiff_t rows = sl_round_up(sl_min(ROWS, w->p - i0), mr),
                    columns = sl_round_up(sl_min(COLUMNS, w->q - j0), nr);

    memset(c, 0, ROWS * COLUMNS * sizeof *c);
    for (ptrdiff_t t = 0; t < w->n; t += DEPTH) {
        const ptrdiff_t depth = sl_min(DEPTH, w->n - t);
        pack(w->a, w->p, t, depth, i0, rows, mr, left);
        pack(w->b, w->q, t, depth, j0, columns, nr, right);
        for (ptrdiff_t j = 0; j < columns; j += nr) {
            for (ptrdiff_t i = 0; i < rows; i += mr) {
                w->tier->cross_tile(left + i * depth, right + j * depth, depth, c + i * COLUMNS + j, COLUMNS);
            }
        }
    }
    for (ptrdiff_t i = 0; i < sl_min(ROWS, w->p - i0); i++) {
        memcpy(w->out + (i0 + i) * w->q + j0, c + i * COLUMNS, (size_t)sl_min(COLUMNS, w->q - j0) * sizeof *c);
    }
}

sl_status
sl_cross_f64(const double *a, const double *b, ptrdiff_t n, ptrdiff_t p, ptrdiff_t q, ptrdiff_t begin, ptrdiff_t end,
             double *out, int n_threads)
{
    const job w = {a, b, n, p, q, out, sl_tier_get()};
    const ptrdiff_t across = sl_ceil_div(q, COLUMNS), tasks = sl_ceil_div(end - begin, ROWS) * across;
    const ptrdiff_t each = ROWS * DEPTH + COLUMNS * DEPTH + ROWS * COLUMNS;
    ptrdiff_t size;
    double *work;
    int threads;

    if (n < 0 || p < 0 || q < 0 || n_threads < 1 || (a == b && p != q) || begin < 0 || end < begin || end > p ||
        begin % ROWS != 0 || (end % ROWS != 0 && end != p)) {
        return SL_ERR_ARG;
    }
    if (sl_mul(n, p, &size) < 0 || sl_mul(n, q, &size) < 0 || sl_mul(p, q, &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    threads = sl_threads(n_threads);
    work = sl_alloc(each * threads, sizeof *work);
    if (work == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1 && tasks > 1) schedule(dynamic, 1)
    for (ptrdiff_t t = 0; t < tasks; t++) {
        const ptrdiff_t i0 = begin + t / across * ROWS, j0 = t % across * COLUMNS;
        double *own = work + sl_thread_index() * each;
        if (a != b || j0 + COLUMNS > i0) { /* of a symmetric result, what lies wholly below the diagonal is mirrored */
            run_task(&w, i0, j0, own, own + ROWS * DEPTH, own + ROWS * DEPTH + COLUMNS * DEPTH);
        }
    }
    for (ptrdiff_t i = begin; a == b && i < end; i++) {
        for (ptrdiff_t j = 0; j < i; j++) {
            out[i * q + j] = out[j * q + i];
        }
    }
    sl_free(work);
    return SL_OK;
}
