/* Soft membership.  Contract: sl_membership.h.  Inner loops: tier_member_inl.h.
 *
 * Sixteen points look for the nearest exemplar of one concept at a time.  With the concept's centre c, half a squared distance without the point's own
 * square is |e - c|^2 / 2 + c.(e - c) - x.(e - c), one multiply-add a coordinate in float32, whose rounding grows with the concept, not with the data.
 * The nearest one is then measured in double, by differences, so that an exemplar is exactly at distance 0 from itself; where float32 cannot tell who is
 * nearest, all are. */
#include "sl/sl_membership.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_tier.h"

enum { BLOCK = SL_SPACE_BLOCK };

/* Exemplars of concept k: rows [first[k], first[k] + count[k]), first[k] a multiple of 4. */
struct sl_exemplars {
    ptrdiff_t K, d, ld; /* ld: d, padded to a multiple of 4 */
    ptrdiff_t *first, *count;
    double *rows;   /* (padded, ld) */
    double *centre; /* (d), subtracted from everything before rounding to float */
    double *middle; /* (K, d) centre of each concept, seen from the centre of all */
    float *rate;    /* (K) and */
    float *base; /* (K): rounding of the concept's values is below rate (base + the point's distance to the centre) */
    float *negated; /* (padded / 4, d, 4) exemplars as seen from their concept's centre, negative */
    float *half;    /* (padded) what their values begin with, inf for padding */
};

void
sl_exemplars_free(sl_exemplars *e)
{
    if (e != NULL) {
        sl_free(e->half);
        sl_free(e->negated);
        sl_free(e->base);
        sl_free(e->rate);
        sl_free(e->middle);
        sl_free(e->centre);
        sl_free(e->rows);
        sl_free(e->count);
        sl_free(e->first);
        sl_free(e);
    }
}

static int
all_finite(const double *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return 0;
        }
    }
    return 1;
}

static ptrdiff_t
round_up(ptrdiff_t n, ptrdiff_t step)
{
    return (n + step - 1) / step * step;
}

/* Whether float32 can hold what is computed from numbers up to `size`. */
static int
is_moderate(double size)
{
    return size < 0x1p60;
}

/* Packs concept k, whose exemplars are the rows of x. */
static void
fill_concept(sl_exemplars *e, const double *x, ptrdiff_t k)
{
    const ptrdiff_t d = e->d, padded = round_up(e->count[k], 4);
    const double rounding =
        (double)(2 * d + 20) * 0x1p-24; /* twice (operands, products, d + 1 sums), and of the bound itself */
    double *middle = e->middle + k * d, longest = 0.0, away = 0.0;

    for (ptrdiff_t j = 0; j < d; j++) {
        middle[j] = 0.0;
        for (ptrdiff_t i = 0; i < e->count[k]; i++) {
            middle[j] += (x[i * d + j] - e->centre[j]) / (double)e->count[k];
        }
        away += middle[j] * middle[j];
    }
    away = sqrt(away);
    for (ptrdiff_t i = 0; i < padded; i++) {
        const ptrdiff_t at = e->first[k] + i;
        const int there = i < e->count[k];
        double square = 0.0, across = 0.0;
        for (ptrdiff_t j = 0; j < d; j++) {
            const double t = there ? x[i * d + j] - e->centre[j] - middle[j] : 0.0;
            e->rows[at * e->ld + j] = there ? x[i * d + j] : 0.0;
            e->negated[at / 4 * 4 * d + 4 * j + at % 4] = (float)-t;
            square += t * t;
            across += t * middle[j];
        }
        e->half[at] = there ? (float)(0.5 * square + across) : HUGE_VALF;
        longest = fmax(longest, sqrt(square));
    }
    e->base[k] = (float)(0.5 * longest + away);
    e->rate[k] = is_moderate(longest + away) ? (float)(rounding * longest) : HUGE_VALF;
}

sl_status
sl_exemplars_new(const double *x, const int64_t *start, ptrdiff_t K, ptrdiff_t d, sl_exemplars **out)
{
    const ptrdiff_t total = K > 0 ? start[K] : 0;
    ptrdiff_t padded = 0, values, middles;
    sl_exemplars *e;

    *out = NULL;
    if (K < 0 || d < 1) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        if (start[k] < 0 || start[k + 1] <= start[k]) {
            return SL_ERR_ARG;
        }
        padded += round_up(start[k + 1] - start[k], 4);
    }
    if (sl_mul(padded, round_up(d, 4), &values) < 0 || sl_mul(K, d, &middles) < 0) {
        return SL_ERR_OVERFLOW;
    }
    if (!all_finite(x, total * d)) {
        return SL_ERR_NUMERIC;
    }
    e = sl_alloc(1, sizeof *e);
    if (e == NULL) {
        return SL_ERR_NOMEM;
    }
    *e = (sl_exemplars){.K = K, .d = d, .ld = round_up(d, 4)};
    e->first = sl_alloc(K, sizeof *e->first);
    e->count = sl_alloc(K, sizeof *e->count);
    e->rows = sl_alloc(values, sizeof *e->rows);
    e->centre = sl_alloc(d, sizeof *e->centre);
    e->middle = sl_alloc(middles, sizeof *e->middle);
    e->rate = sl_alloc(K, sizeof *e->rate);
    e->base = sl_alloc(K, sizeof *e->base);
    e->negated = sl_alloc(values, sizeof *e->negated);
    e->half = sl_alloc(padded, sizeof *e->half);
    if (e->first == NULL || e->count == NULL || e->rows == NULL || e->centre == NULL || e->middle == NULL ||
        e->rate == NULL || e->base == NULL || e->negated == NULL || e->half == NULL) {
        sl_exemplars_free(e);
        return SL_ERR_NOMEM;
    }
    memset(e->rows, 0, (size_t)values * sizeof *e->rows);
    for (ptrdiff_t j = 0; j < d; j++) {
        e->centre[j] = 0.0;
        for (ptrdiff_t i = 0; i < total; i++) {
            e->centre[j] += x[i * d + j] / (double)total;
        }
    }
    padded = 0;
    for (ptrdiff_t k = 0; k < K; k++) {
        e->first[k] = padded;
        e->count[k] = start[k + 1] - start[k];
        fill_concept(e, x + start[k] * d, k);
        padded += round_up(e->count[k], 4);
    }
    *out = e;
    return SL_OK;
}

/* What the softmax needs of each node, whoever the point is: e = exp(t - shift) where the height is the table's. */
typedef struct {
    double *e;      /* (T, ld) */
    double *height; /* (T, ld): the table with rows padded by zeros */
    double *shift;  /* (T) largest t of the node, 0 where t cannot exceed 1 */
    ptrdiff_t ld;   /* K, padded to a multiple of 4 */
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
    double *e = table->e + c * table->ld, most = 0.0;

    for (ptrdiff_t k = 0; k < table->ld; k++) {
        e[k] = 0.0;
        table->height[c * table->ld + k] = k < K ? height[k] : 0.0;
    }

    for (ptrdiff_t k = 0; k < K; k++) {
        e[k] = isnan(height[k]) ? 0.0 : exponent(rules, lmax, fmin(height[k], rules->most));
        most = fmax(most, e[k]);
    }
    table->shift[c] = rules->variant == SL_MEMBER_NEW_POINT ? most : 0.0;
    for (ptrdiff_t k = 0; k < K; k++) {
        e[k] = exp(e[k] - table->shift[c]);
    }
}

static double
ratio(double a, double b)
{
    return b > 0.0 ? a / b : 0.0;
}

/* First of the concepts whose height is the largest. */
static ptrdiff_t
first_highest(const double *height, ptrdiff_t K, double lam, double most, double highest)
{
    for (ptrdiff_t k = 0; k < K; k++) {
        const double h = height[k] != height[k] ? lam : height[k] < most ? height[k] : most;
        if (h == highest) {
            return k;
        }
    }
    return 0;
}

/* One row: squared distances in u (padded with inf) become memberships.  Factors that all entries share, such as the sum of the softmax, cancel. */
static void
finish_row(const node_table *table, const sl_member_rules *rules, ptrdiff_t K, int64_t c, double lambda,
           double *restrict u)
{
    const sl_tier *tier = sl_tier_get();
    const int fresh = rules->variant == SL_MEMBER_NEW_POINT;
    const double *height = table->height + c * table->ld;
    const double lam = fmin(lambda, rules->most), lmax = fmin(rules->lmax[c], rules->most);
    const double own_t = exponent(rules, lmax, fresh ? (double)(float)lam : lam);
    const double shift = fresh ? fmax(own_t, table->shift[c]) : 0.0;
    const double own = exp(own_t - shift), others = fresh ? exp(table->shift[c] - shift) : 1.0;
    double highest, sum, top, p;

    tier->member_nearness(u, K, DBL_MAX / (double)K);
    sum = tier->member_weigh(u, height, table->e + c * table->ld, K, fresh, own, others, lam, rules->most, &highest);
    top = fmin(rules->top[first_highest(height, K, lam, rules->most, highest)], rules->most);
    p = fresh ? highest / (fmax(lam, top) + 1e-8) : ratio(highest, fmax(lam, top));
    for (ptrdiff_t k = 0; k < K; k++) {
        u[k] = sum > 0.0 ? p * (u[k] / sum) : 0.0;
    }
}

typedef struct {
    const sl_exemplars *exemplars;
    const double *z;
    ptrdiff_t n;
    const int64_t *node;
    const double *lambda;
    const sl_member_rules *rules;
    node_table table;
    int single;
    void *P;
    const sl_tier *tier;
} job;

/* A thread's buffers. */
typedef struct {
    double *u;    /* (BLOCK, ld of the table) */
    double *x;    /* (BLOCK, ld of the exemplars) */
    float *block; /* (d, BLOCK) */
} scratch;

/* Loads the block's points; reach[l]: distance to the centre. */
static void
load_block(const job *w, const scratch *s, ptrdiff_t first, ptrdiff_t count, float *reach)
{
    const sl_exemplars *e = w->exemplars;

    for (ptrdiff_t l = 0; l < BLOCK; l++) {
        const double *row = w->z + (first + (l < count ? l : 0)) * e->d;
        double square = 0.0;
        for (ptrdiff_t j = 0; j < e->d; j++) {
            const double t = row[j] - e->centre[j];
            s->x[l * e->ld + j] = row[j];
            s->block[j * BLOCK + l] = (float)t;
            square += t * t;
        }
        for (ptrdiff_t j = e->d; j < e->ld; j++) {
            s->x[l * e->ld + j] = 0.0;
        }
        reach[l] = is_moderate(square) ? (float)sqrt(square) : HUGE_VALF;
    }
}

static void
visit_block(const job *w, const scratch *s, ptrdiff_t first)
{
    const sl_exemplars *e = w->exemplars;
    const ptrdiff_t K = e->K, ld = w->table.ld, count = w->n - first < BLOCK ? w->n - first : BLOCK;
    float reach[BLOCK];

    load_block(w, s, first, count, reach);
    for (ptrdiff_t k = 0; k < K; k++) {
        const ptrdiff_t at = e->first[k];
        double squared[BLOCK];
        w->tier->member_nearest(s->block, e->negated + at * e->d, e->half + at, e->count[k], e->d, e->rate[k],
                                e->base[k], reach, s->x, e->rows + at * e->ld, e->ld, squared);
        for (ptrdiff_t l = 0; l < count; l++) {
            s->u[l * ld + k] = squared[l];
        }
    }
    for (ptrdiff_t l = 0; l < count; l++) {
        const ptrdiff_t i = first + l;
        double *row = s->u + l * ld;
        for (ptrdiff_t k = K; k < ld; k++) {
            row[k] = HUGE_VAL;
        }
        finish_row(&w->table, w->rules, K, w->node[i], w->lambda[i], row);
        for (ptrdiff_t k = 0; w->single && k < K; k++) {
            ((float *)w->P)[i * K + k] = (float)row[k];
        }
        if (!w->single) {
            memcpy((double *)w->P + i * K, row, (size_t)K * sizeof *row);
        }
    }
}

/* 0, or what is wrong with rows [begin, end). */
static sl_status
check_rows(const job *w, ptrdiff_t begin, ptrdiff_t end)
{
    for (ptrdiff_t i = begin; i < end; i++) {
        if (w->node[i] < 0 || w->node[i] >= w->rules->T || !(w->lambda[i] >= 0.0)) {
            return SL_ERR_ARG;
        }
    }
    return all_finite(w->z + begin * w->exemplars->d, (end - begin) * w->exemplars->d) ? SL_OK : SL_ERR_NUMERIC;
}

sl_status
sl_membership(const sl_exemplars *e, const double *z, ptrdiff_t n, const int64_t *node, const double *lambda,
              const sl_member_rules *rules, ptrdiff_t begin, ptrdiff_t end, int single, void *P, int n_threads)
{
    job w = {e, z, n, node, lambda, rules, {NULL, NULL, NULL, round_up(e->K, 4)}, single, P, sl_tier_get()};
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);
    const ptrdiff_t ld = w.table.ld, doubles = BLOCK * (ld + e->ld), floats = BLOCK * e->d;
    sl_status status;
    ptrdiff_t entries;
    double *wide = NULL;
    float *narrow = NULL;

    if (n_threads < 1 || begin < 0 || end < begin || end > n || begin % BLOCK != 0 || rules->T < 1) {
        return SL_ERR_ARG;
    }
    status = check_rows(&w, begin, end);
    if (status != SL_OK || e->K == 0) {
        return status;
    }
    if (sl_mul(ld, rules->T, &entries) < 0) {
        return SL_ERR_OVERFLOW;
    }
    status = SL_ERR_NOMEM;
    wide = sl_alloc(doubles * threads, sizeof *wide);
    narrow = sl_alloc(floats * threads, sizeof *narrow);
    w.table.e = sl_alloc(entries, sizeof *w.table.e);
    w.table.height = sl_alloc(entries, sizeof *w.table.height);
    w.table.shift = sl_alloc(rules->T, sizeof *w.table.shift);
    if (wide == NULL || narrow == NULL || w.table.e == NULL || w.table.height == NULL || w.table.shift == NULL) {
        goto done;
    }
    w.n = end;
#pragma omp parallel num_threads(threads) if (threads > 1 && end - begin > BLOCK)
    {
        const ptrdiff_t me = sl_thread_index();
        double *u = wide + me * doubles;
        float *block = narrow + me * floats;
        const scratch s = {u, u + BLOCK * ld, block};
#pragma omp for schedule(static)
        for (ptrdiff_t c = 0; c < rules->T; c++) {
            fill_node(&w.table, rules, e->K, c);
        }
#pragma omp for schedule(dynamic, 4)
        for (ptrdiff_t i = begin; i < end; i += BLOCK) {
            visit_block(&w, &s, i);
        }
    }
    status = SL_OK;
done:
    sl_free(w.table.shift);
    sl_free(w.table.height);
    sl_free(w.table.e);
    sl_free(narrow);
    sl_free(wide);
    return status;
}
