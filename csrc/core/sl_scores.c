/* Clarity and concept vectors.  Contract: sl_scores.h. */
#include "sl/sl_scores.h"

#include <math.h>

#include "sl_lens_private.h"

sl_status
sl_examples_check(const sl_examples *x)
{
    ptrdiff_t places, size;

    if (x->rows < 0 || x->d < 0 || x->K < 0 || x->m < 0) {
        return SL_ERR_ARG;
    }
    if (sl_mul(x->K, x->m, &places) < 0 || sl_mul(x->rows, x->d, &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    if (x->ids == NULL && x->rows != places) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = 0; x->ids != NULL && i < places; i++) {
        if (x->ids[i] < -1 || x->ids[i] >= x->rows) {
            return SL_ERR_ARG;
        }
    }
    for (ptrdiff_t k = 0; x->counts != NULL && k < x->K; k++) {
        if (x->counts[k] < 0 || x->counts[k] > x->m) {
            return SL_ERR_ARG;
        }
    }
    return SL_OK;
}

ptrdiff_t
sl_usable_rows(const sl_examples *x, ptrdiff_t k, const struct sl_lens_loops *loops, const float **rows,
               ptrdiff_t *places, double *squares)
{
    const ptrdiff_t count = x->counts != NULL ? (ptrdiff_t)x->counts[k] : x->m;
    ptrdiff_t used = 0;

    for (ptrdiff_t i = 0; i < count; i++) {
        const ptrdiff_t at = x->ids != NULL ? (ptrdiff_t)x->ids[k * x->m + i] : k * x->m + i;
        if (at < 0) {
            continue;
        }
        const float *row = x->table + at * x->d;
        const double square = loops->square(row, x->d);
        if (!(square > 0.0 && square < (double)INFINITY)) { /* NaN fails both */
            continue;
        }
        rows[used] = row;
        squares[used] = square;
        if (places != NULL) {
            places[used] = i;
        }
        used++;
    }
    return used;
}

static int
weights_are_usable(const float *weights, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; weights != NULL && i < n; i++) {
        if (!(weights[i] >= 0.0F && weights[i] < INFINITY)) {
            return 0;
        }
    }
    return 1;
}

/* What one thread needs for a component at a time. */
typedef struct {
    const float **rows;
    ptrdiff_t *places;
    double *squares, *scale, *sum;
} score_work;

/* One allocation for all threads; each thread's part starts on a cache line.  NULL if memory is out. */
static char *
work_alloc(ptrdiff_t m, ptrdiff_t d, int threads, ptrdiff_t *stride)
{
    const ptrdiff_t words = 4 * ((m + 7) & ~(ptrdiff_t)7) + ((d + 7) & ~(ptrdiff_t)7);
    ptrdiff_t total;

    *stride = words * (ptrdiff_t)sizeof(double);
    return sl_mul(*stride, threads, &total) < 0 ? NULL : sl_alloc(total, 1);
}

static score_work
work_of_thread(char *memory, ptrdiff_t stride, ptrdiff_t m)
{
    const ptrdiff_t step = ((m + 7) & ~(ptrdiff_t)7) * (ptrdiff_t)sizeof(double);
    char *p = memory + sl_thread_id() * stride;

    return (score_work){.rows = (const float **)(void *)p,
                        .places = (ptrdiff_t *)(void *)(p + step),
                        .squares = (double *)(void *)(p + 2 * step),
                        .scale = (double *)(void *)(p + 3 * step),
                        .sum = (double *)(void *)(p + 4 * step)};
}

/* scale[i] = weight of usable row i, divided by its length if unit; *total = sum of the weights, *squares = of their squares. */
static void
row_scales(const score_work *w, ptrdiff_t used, const float *weights, int unit, double *total, double *total_of_squares)
{
    *total = *total_of_squares = 0.0;
    for (ptrdiff_t i = 0; i < used; i++) {
        const double weight = weights != NULL ? (double)weights[w->places[i]] : 1.0;
        *total += weight;
        *total_of_squares += weight * weight;
        w->scale[i] = unit ? weight / sqrt(w->squares[i]) : weight;
    }
}

static double
clarity_of(const score_work *w, ptrdiff_t used, ptrdiff_t d, const float *weights, const struct sl_lens_loops *loops)
{
    double total, squares, length = 0.0, pairs;

    row_scales(w, used, weights, 1, &total, &squares);
    pairs = total * total - squares;
    if (used < 2 || !(pairs > 1e-12 * squares)) { /* one positive weight leaves only rounding */
        return (double)NAN;
    }
    loops->weighted_sum(w->rows, w->scale, used, d, w->sum);
    for (ptrdiff_t j = 0; j < d; j++) {
        length += w->sum[j] * w->sum[j];
    }
    const double clarity = (length - squares) / pairs;
    return clarity > 1.0 ? 1.0 : clarity;
}

/* What is made of each component: clarity[k], or the vector (d) of row k. */
typedef struct {
    double *clarity;
    float *vectors;
    int normalize;
} score_output;

static void
mean_vector(const score_work *w, ptrdiff_t used, ptrdiff_t d, const float *weights, int normalize,
            const struct sl_lens_loops *loops, float *vector)
{
    double total, squares;

    row_scales(w, used, weights, normalize, &total, &squares);
    loops->weighted_sum(w->rows, w->scale, used, d, w->sum);
    for (ptrdiff_t j = 0; j < d; j++) {
        vector[j] = total > 0.0 ? (float)(w->sum[j] / total) : NAN;
    }
}

/* The walk over the components that both functions below share: checks, memory of the threads, usable rows. */
static sl_status
each_component(const sl_examples *x, const float *weights, score_output out, int64_t *used, int n_threads)
{
    const struct sl_lens_loops *loops = sl_tier_get()->lens;
    const int threads = sl_threads(n_threads);
    sl_status status = sl_examples_check(x);
    ptrdiff_t stride;
    char *memory = NULL;

    if (status == SL_OK && (n_threads < 1 || !weights_are_usable(weights, x->K * x->m))) {
        status = SL_ERR_ARG;
    }
    if (status != SL_OK) {
        return status;
    }
    memory = work_alloc(x->m, x->d, threads, &stride);
    if (memory == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (ptrdiff_t k = 0; k < x->K; k++) {
        const score_work w = work_of_thread(memory, stride, x->m);
        const ptrdiff_t n = sl_usable_rows(x, k, loops, w.rows, w.places, w.squares);
        const float *own = weights != NULL ? weights + k * x->m : NULL;

        if (out.clarity != NULL) {
            out.clarity[k] = clarity_of(&w, n, x->d, own, loops);
        } else {
            mean_vector(&w, n, x->d, own, out.normalize, loops, out.vectors + k * x->d);
        }
        used[k] = n;
    }
    sl_free(memory);
    return SL_OK;
}

sl_status
sl_clarity_f32(const sl_examples *x, const float *weights, double *clarity, int64_t *used, int n_threads)
{
    return each_component(x, weights, (score_output){.clarity = clarity}, used, n_threads);
}

sl_status
sl_concept_vectors_f32(const sl_examples *x, const float *weights, int normalize, float *vectors, int64_t *used,
                       int n_threads)
{
    return each_component(x, weights, (score_output){.vectors = vectors, .normalize = normalize}, used, n_threads);
}
