/* Soft membership.  Contract: sl_membership.h.
 *
 * Sixteen neighbouring points look for the nearest exemplar of one concept at a time; most of a concept's exemplars are ruled out by their
 * boxes.  Distances are sums of squared differences, so that an exemplar is exactly at distance 0 from itself. */
#include "sl/sl_membership.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_space_private.h"

struct sl_exemplars {
    ptrdiff_t K, d;
    sl_space **space;
};

void
sl_exemplars_free(sl_exemplars *e)
{
    if (e != NULL) {
        for (ptrdiff_t k = 0; e->space != NULL && k < e->K; k++) {
            sl_space_free(e->space[k]);
        }
        sl_free(e->space);
        sl_free(e);
    }
}

sl_status
sl_exemplars_new(const double *x, const int64_t *start, ptrdiff_t K, ptrdiff_t d, sl_exemplars **out)
{
    sl_exemplars *e;
    sl_status status = SL_OK;

    *out = NULL;
    if (K < 0 || d < 1) {
        return SL_ERR_ARG;
    }
    e = sl_alloc(1, sizeof *e);
    if (e == NULL) {
        return SL_ERR_NOMEM;
    }
    *e = (sl_exemplars){K, d, sl_alloc(K, sizeof *e->space)};
    if (e->space == NULL) {
        sl_exemplars_free(e);
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        e->space[k] = NULL;
    }
    for (ptrdiff_t k = 0; k < K && status == SL_OK; k++) {
        status = start[k] < 0 || start[k + 1] < start[k]
                     ? SL_ERR_ARG
                     : sl_space_new(x + start[k] * d, start[k + 1] - start[k], d, &e->space[k]);
    }
    if (status != SL_OK) {
        sl_exemplars_free(e);
        return status;
    }
    *out = e;
    return SL_OK;
}

/* u from squared distances, in place. */
static void
nearness(double *restrict u, ptrdiff_t K)
{
    double sum = 0.0;

    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] = u[k] > 0.0 ? 1.0 / sqrt(u[k]) : DBL_MAX / (double)K;
        sum += u[k];
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] /= sum;
    }
}

static void
softmax(double *restrict t, ptrdiff_t K)
{
    double most = t[0], sum = 0.0;

    for (ptrdiff_t k = 1; k < K; k++) {
        most = fmax(most, t[k]);
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        t[k] = exp(t[k] - most);
        sum += t[k];
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        t[k] /= sum;
    }
}

static double
ratio(double a, double b)
{
    return b > 0.0 ? a / b : 0.0;
}

/* One row: squared distances in u become memberships; t (K) is workspace. */
static void
finish_row(const sl_member_rules *rules, ptrdiff_t K, int64_t c, double lambda, double *restrict u, double *restrict t)
{
    const double lam = fmin(lambda, rules->most), lmax = fmin(rules->lmax[c], rules->most);
    const double rounded = (double)(float)lam;
    double highest = -1.0, top = 0.0, sum = 0.0;

    nearness(u, K);
    for (ptrdiff_t k = 0; k < K; k++) {
        const double apart = rules->height[c * K + k];
        const int own = isnan(apart);
        const double h = own ? lam : fmin(apart, rules->most);
        if (h > highest) {
            highest = h;
            top = fmin(rules->top[k], rules->most);
        }
        if (rules->variant == SL_MEMBER_NEW_POINT) {
            const double below = lmax - (own ? rounded : h);
            t[k] = lmax / (below > 0.0 ? below : 1e-8);
        } else {
            t[k] = h > 0.0 ? exp(-(lmax + 1e-8) / h) : 0.0;
        }
    }
    softmax(t, K);
    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] = rules->variant == SL_MEMBER_NEW_POINT ? sqrt(u[k]) * (t[k] * t[k]) : u[k] * t[k];
        sum += u[k];
    }
    const double p =
        rules->variant == SL_MEMBER_NEW_POINT ? highest / (fmax(lam, top) + 1e-8) : ratio(highest, fmax(lam, top));
    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] = p * ratio(u[k], sum);
    }
}

/* A thread's workspace. */
typedef struct {
    double *u; /* (16, K) */
    double *t; /* (K) */
} workspace;

static void
visit_block(const sl_exemplars *e, const sl_space *points, const int64_t *node, const double *lambda,
            const sl_member_rules *rules, ptrdiff_t block, int single, void *P, const workspace *w)
{
    const ptrdiff_t K = e->K, count = sl_space_min(SL_SPACE_BLOCK, points->n - block * SL_SPACE_BLOCK);

    for (ptrdiff_t k = 0; k < K; k++) {
        int32_t index[SL_SPACE_BLOCK];
        double squared[SL_SPACE_BLOCK];
        sl_space_search(e->space[k], sl_space_block(points, block), count, 1, index, squared);
        for (ptrdiff_t l = 0; l < count; l++) {
            w->u[l * K + k] = squared[l];
        }
    }
    for (ptrdiff_t l = 0; l < count; l++) {
        const ptrdiff_t i = points->order[block * SL_SPACE_BLOCK + l];
        double *row = w->u + l * K;
        finish_row(rules, K, node[i], lambda[i], row, w->t);
        for (ptrdiff_t k = 0; k < K; k++) {
            if (single) {
                ((float *)P)[i * K + k] = (float)row[k];
            } else {
                ((double *)P)[i * K + k] = row[k];
            }
        }
    }
}

sl_status
sl_membership(const sl_exemplars *e, const sl_space *points, const int64_t *node, const double *lambda,
              const sl_member_rules *rules, ptrdiff_t begin, ptrdiff_t end, int single, void *P, int n_threads)
{
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);
    ptrdiff_t size;
    double *scratch;

    if (n_threads < 1 || begin < 0 || end < begin || end > points->blocks || e->d != points->d) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = 0; i < points->n; i++) {
        if (node[i] < 0 || node[i] >= rules->T || !(lambda[i] >= 0.0)) {
            return SL_ERR_ARG;
        }
    }
    if (e->K == 0) {
        return SL_OK;
    }
    if (sl_mul(e->K, (ptrdiff_t)(SL_SPACE_BLOCK + 1) * threads, &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    scratch = sl_alloc(size, sizeof *scratch);
    if (scratch == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1 && end - begin > 1) schedule(dynamic, 1)
    for (ptrdiff_t b = begin; b < end; b++) {
        double *mine = scratch + sl_thread_index() * e->K * (SL_SPACE_BLOCK + 1);
        const workspace w = {mine, mine + e->K * SL_SPACE_BLOCK};
        visit_block(e, points, node, lambda, rules, b, single, P, &w);
    }
    sl_free(scratch);
    return SL_OK;
}
