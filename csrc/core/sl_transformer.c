/* Normalisation of rows and attention.  Contract: sl_transformer.h.  Inner loops: tier_transformer_inl.h. */
#include "sl/sl_transformer.h"

#include <math.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"

enum {
    SERIAL_BELOW = 1 << 15, /* fewer floats (or eight times fewer products) than this are not worth a second thread */
    BLOCK = 96,             /* queries whose scores are held at a time */
    FEW = 8                 /* up to this many queries are answered one by one */
};

sl_status
sl_norm_rows_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, double eps, int centred, const float *weight,
                 const float *bias, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (rows < 0 || n < 1 || !(eps >= 0.0) || n_threads < 1) {
        return SL_ERR_ARG;
    }
    n_threads = rows < SERIAL_BELOW / n ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t r = 0; r < rows; r++) {
        tier->norm_row(x + r * n, n, eps, centred, weight, bias, y + r * n);
    }
    return SL_OK;
}

sl_status
sl_group_norm_f32(const float *x, ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t n, ptrdiff_t groups, double eps,
                  const float *weight, const float *bias, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (batch < 0 || channels < 1 || n < 1 || groups < 1 || channels % groups != 0 || !(eps >= 0.0) || n_threads < 1) {
        return SL_ERR_ARG;
    }
    const ptrdiff_t each = channels / groups;
    n_threads = batch * channels < SERIAL_BELOW / n ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t g = 0; g < batch * groups; g++) {
        tier->norm_row(x + g * each * n, each * n, eps, 1, NULL, NULL, y + g * each * n);
        for (ptrdiff_t c = 0; c < each && (weight != NULL || bias != NULL); c++) {
            const ptrdiff_t channel = g % groups * each + c;
            float *plane = y + (g * each + c) * n;
            tier->map_scale_shift(plane, n, weight != NULL ? weight[channel] : 1.0F,
                                  bias != NULL ? bias[channel] : 0.0F, SL_ACT_NONE, plane);
        }
    }
    return SL_OK;
}

/* Places of a thread's workspace, in floats. */
typedef struct {
    ptrdiff_t scores, values, product, each;
} layout;

static ptrdiff_t
larger(ptrdiff_t a, ptrdiff_t b)
{
    return a > b ? a : b;
}

static sl_status
measure(const sl_attention_shape *s, layout *l)
{
    const ptrdiff_t rows = sl_min(s->queries, BLOCK);
    ptrdiff_t size;

    if (s->keys > PTRDIFF_MAX / (4 * BLOCK) - 64 || sl_mul(s->keys, s->depth, &l->values) < 0 ||
        sl_mul(s->pairs, s->queries, &size) < 0 ||
        sl_mul(size, larger(s->keys, larger(s->width, s->depth)), &size) < 0 || sl_mul(s->pairs, s->keys, &size) < 0 ||
        sl_mul(size, larger(s->width, s->depth), &size) < 0 ||
        sl_mul(l->values, 8 * (ptrdiff_t)sizeof(float), &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    l->scores = sl_round_up(rows * s->keys, 16);
    l->values = s->queries > FEW ? sl_round_up(l->values, 16) : 0;
    l->product = sl_round_up(
        larger(sl_gemm_nt_worksize(rows, s->keys, s->width), sl_gemm_nt_worksize(rows, s->depth, s->keys)), 16);
    l->each = l->scores + l->values + l->product;
    return SL_OK;
}

/* Keys that query i may look at. */
static ptrdiff_t
visible(const sl_attention_shape *s, ptrdiff_t i)
{
    return s->causal ? i + 1 + s->keys - s->queries : s->keys;
}

static void
weights(const sl_attention_shape *s, const sl_tier *tier, ptrdiff_t first, ptrdiff_t rows, const float *bias,
        float *scores)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t n = visible(s, first + i);
        float *row = scores + i * s->keys;
        tier->map_scale(row, n, s->scale, row);
        if (bias != NULL) {
            tier->map_add(row, bias + (first + i) * s->keys, n, SL_ACT_NONE, row);
        }
        tier->softmax_row(row, n, row);
        memset(row + n, 0, (size_t)(s->keys - n) * sizeof *row);
    }
}

static void
transpose(const float *v, ptrdiff_t rows, ptrdiff_t columns, float *out)
{
    for (ptrdiff_t i = 0; i < rows; i += 16) {
        for (ptrdiff_t j = 0; j < columns; j++) {
            for (ptrdiff_t l = i; l < sl_min(i + 16, rows); l++) {
                out[j * rows + l] = v[l * columns + j];
            }
        }
    }
}

/* A product of causal queries ends at the last key that any query of the block may look at. */
static void
attend(const sl_attention_shape *s, const sl_tier *tier, const layout *l, const float *q, const float *k,
       const float *v, const float *bias, float *y, float *work)
{
    float *scores = work, *columns = scores + l->scores, *product = columns + l->values;

    if (s->queries <= FEW) {
        for (ptrdiff_t i = 0; i < s->queries; i++) {
            tier->attention_row(q + i * s->width, k, v, s->width, s->depth, visible(s, i), s->scale,
                                bias != NULL ? bias + i * s->keys : NULL, scores, y + i * s->depth);
        }
        return;
    }
    transpose(v, s->keys, s->depth, columns);
    for (ptrdiff_t first = 0; first < s->queries; first += BLOCK) {
        const ptrdiff_t rows = sl_min(BLOCK, s->queries - first), n = visible(s, first + rows - 1);
        sl_gemm_nt_serial_f32(q + first * s->width, s->width, rows, k, s->width, n, s->width, scores, s->keys, product);
        weights(s, tier, first, rows, bias, scores);
        sl_gemm_nt_serial_f32(scores, s->keys, rows, columns, s->keys, s->depth, n, y + first * s->depth, s->depth,
                              product);
    }
}

sl_status
sl_attention_f32(const sl_attention_shape *s, const float *q, const float *k, const float *v, const float *bias,
                 float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    layout l;
    float *work;
    sl_status status;

    if (s->pairs < 0 || s->queries < 0 || s->keys < 1 || s->width < 0 || s->depth < 0 || n_threads < 1 ||
        (s->causal && s->keys < s->queries) || (bias != NULL && (s->bias_pairs < 1 || s->pairs % s->bias_pairs != 0))) {
        return SL_ERR_ARG;
    }
    status = measure(s, &l);
    if (status == SL_OK && s->pairs > 1 && (s->k_step < s->keys * s->width || s->v_step < s->keys * s->depth)) {
        return SL_ERR_ARG;
    }
    if (status != SL_OK || s->pairs == 0 || s->queries == 0) {
        return status;
    }
    n_threads = s->pairs * s->queries * s->keys < SERIAL_BELOW / larger(s->width, 1) * 8 ? 1 : sl_threads(n_threads);
    n_threads = (int)sl_min(n_threads, s->pairs);
    work = sl_alloc(n_threads * l.each, sizeof *work);
    if (work == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t p = 0; p < s->pairs; p++) {
        const ptrdiff_t of_bias = bias != NULL ? p % s->bias_pairs * s->queries * s->keys : 0;
#ifdef _OPENMP
        float *own = work + omp_get_thread_num() * l.each;
#else
        float *own = work;
#endif
        attend(s, tier, &l, q + p * s->queries * s->width, k + p * s->k_step, v + p * s->v_step,
               bias != NULL ? bias + of_bias : NULL, y + p * s->queries * s->depth, own);
    }
    sl_free(work);
    return SL_OK;
}
