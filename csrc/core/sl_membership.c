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

/* What the softmax needs of each node, whoever the point is: e = exp(t - shift) where the height is the table's. */
typedef struct {
    double *e;     /* (T, K) */
    double *shift; /* (T) largest t of the node, 0 where t cannot exceed 1 */
} node_table;

static double
exponent(const sl_member_rules *rules, double lmax, double h)
{
    if (rules->variant == SL_MEMBER_NEW_POINT) {
        return lmax / (lmax - h > 0.0 ? lmax - h : 1e-8);
    }
    return h > 0.0 ? exp(-(lmax + 1e-8) / h) : 0.0;
}

static void
fill_node(const node_table *table, const sl_member_rules *rules, ptrdiff_t K, ptrdiff_t c)
{
    const double *height = rules->height + c * K, lmax = fmin(rules->lmax[c], rules->most);
    double *e = table->e + c * K, most = 0.0;

    for (ptrdiff_t k = 0; k < K; k++) {
        e[k] = isnan(height[k]) ? 0.0 : exponent(rules, lmax, fmin(height[k], rules->most));
        most = fmax(most, e[k]);
    }
    table->shift[c] = rules->variant == SL_MEMBER_NEW_POINT ? most : 0.0;
    for (ptrdiff_t k = 0; k < K; k++) {
        e[k] = exp(e[k] - table->shift[c]);
    }
}

/* u from squared distances, in place. */
static void
nearness(double *restrict u, ptrdiff_t K)
{
    const double at_exemplar = DBL_MAX / (double)K;
    double sum = 0.0;

    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] = 1.0 / sqrt(u[k]);
        u[k] = u[k] < at_exemplar ? u[k] : at_exemplar;
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        sum += u[k];
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] /= sum;
    }
}

static double
ratio(double a, double b)
{
    return b > 0.0 ? a / b : 0.0;
}

/* One row: squared distances in u become memberships.  Factors that all entries share, such as the sum of the softmax, cancel. */
static void
finish_row(const node_table *table, const sl_member_rules *rules, ptrdiff_t K, int64_t c, double lambda,
           double *restrict u)
{
    const int fresh = rules->variant == SL_MEMBER_NEW_POINT;
    const double *height = rules->height + c * K, *e = table->e + c * K;
    const double lam = fmin(lambda, rules->most), lmax = fmin(rules->lmax[c], rules->most);
    const double own_t = exponent(rules, lmax, fresh ? (double)(float)lam : lam);
    const double shift = fresh ? fmax(own_t, table->shift[c]) : 0.0;
    const double own = exp(own_t - shift), others = fresh ? exp(table->shift[c] - shift) : 1.0;
    double highest = -1.0, top = 0.0, sum = 0.0;

    nearness(u, K);
    for (ptrdiff_t k = 0; k < K; k++) {
        const int is_own = isnan(height[k]);
        const double h = is_own ? lam : fmin(height[k], rules->most), soft = is_own ? own : e[k] * others;
        if (h > highest) {
            highest = h;
            top = fmin(rules->top[k], rules->most);
        }
        u[k] = fresh ? sqrt(u[k]) * (soft * soft) : u[k] * soft;
        sum += u[k];
    }
    const double p = fresh ? highest / (fmax(lam, top) + 1e-8) : ratio(highest, fmax(lam, top));
    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] = p * ratio(u[k], sum);
    }
}

/* Squared distances of the block's points to the nearest exemplar of one concept. */
static void
nearest_exemplars(const sl_tier *tier, const sl_space *s, const double *block, double *best)
{
    double away[SL_SPACE_BLOCK];

    for (int l = 0; l < SL_SPACE_BLOCK; l++) {
        best[l] = HUGE_VAL;
    }
    for (ptrdiff_t t = 0; t < s->nodes; t++) {
        const sl_space_node *node = &s->node[t];
        int wanted = t == 0;
        if (node->left >= 0) {
            continue;
        }
        if (!wanted) {
            tier->space_box(block, s->boxes + t * s->d * 2, s->d, away);
            for (int l = 0; l < SL_SPACE_BLOCK; l++) {
                wanted |= away[l] < best[l];
            }
        }
        if (wanted) {
            tier->space_nearest(block, sl_space_block(s, node->first),
                                sl_space_min(SL_SPACE_BLOCK, s->n - node->first * (ptrdiff_t)SL_SPACE_BLOCK), s->d,
                                best);
        }
    }
}

typedef struct {
    const sl_exemplars *exemplars;
    const sl_space *points;
    const int64_t *node;
    const double *lambda;
    const sl_member_rules *rules;
    node_table table;
    int single;
    void *P;
} job;

/* u (16, K) is workspace. */
static void
visit_block(const job *w, ptrdiff_t block, double *restrict u)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t K = w->exemplars->K, count = sl_space_min(SL_SPACE_BLOCK, w->points->n - block * SL_SPACE_BLOCK);

    for (ptrdiff_t k = 0; k < K; k++) {
        double squared[SL_SPACE_BLOCK];
        nearest_exemplars(tier, w->exemplars->space[k], sl_space_block(w->points, block), squared);
        for (ptrdiff_t l = 0; l < count; l++) {
            u[l * K + k] = squared[l];
        }
    }
    for (ptrdiff_t l = 0; l < count; l++) {
        const ptrdiff_t i = w->points->order[block * SL_SPACE_BLOCK + l];
        double *row = u + l * K;
        finish_row(&w->table, w->rules, K, w->node[i], w->lambda[i], row);
        for (ptrdiff_t k = 0; w->single && k < K; k++) {
            ((float *)w->P)[i * K + k] = (float)row[k];
        }
        if (!w->single) {
            memcpy((double *)w->P + i * K, row, (size_t)K * sizeof *row);
        }
    }
}

sl_status
sl_membership(const sl_exemplars *e, const sl_space *points, const int64_t *node, const double *lambda,
              const sl_member_rules *rules, ptrdiff_t begin, ptrdiff_t end, int single, void *P, int n_threads)
{
    job w = {e, points, node, lambda, rules, {NULL, NULL}, single, P};
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);
    sl_status status = SL_ERR_NOMEM;
    ptrdiff_t size, entries;
    double *scratch = NULL;

    if (n_threads < 1 || begin < 0 || end < begin || end > points->blocks || e->d != points->d || rules->T < 1) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t p = begin * SL_SPACE_BLOCK; p < sl_space_min(end * SL_SPACE_BLOCK, points->n); p++) {
        const ptrdiff_t i = points->order[p];
        if (node[i] < 0 || node[i] >= rules->T || !(lambda[i] >= 0.0)) {
            return SL_ERR_ARG;
        }
    }
    if (e->K == 0) {
        return SL_OK;
    }
    if (sl_mul(e->K, (ptrdiff_t)SL_SPACE_BLOCK * threads, &size) < 0 || sl_mul(e->K, rules->T, &entries) < 0) {
        return SL_ERR_OVERFLOW;
    }
    scratch = sl_alloc(size, sizeof *scratch);
    w.table.e = sl_alloc(entries, sizeof *w.table.e);
    w.table.shift = sl_alloc(rules->T, sizeof *w.table.shift);
    if (scratch == NULL || w.table.e == NULL || w.table.shift == NULL) {
        goto done;
    }
#pragma omp parallel num_threads(threads) if (threads > 1 && end - begin > 1)
    {
#pragma omp for schedule(static)
        for (ptrdiff_t c = 0; c < rules->T; c++) {
            fill_node(&w.table, rules, e->K, c);
        }
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t b = begin; b < end; b++) {
            visit_block(&w, b, scratch + sl_thread_index() * e->K * SL_SPACE_BLOCK);
        }
    }
    status = SL_OK;
done:
    sl_free(w.table.shift);
    sl_free(w.table.e);
    sl_free(scratch);
    return status;
}
