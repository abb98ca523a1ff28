/* Concept-pair distances.  Contract: sl_concept_pairs.h.
 *
 * Sparse route.  Let P and Q be the non-zero values of the two columns and D the samples where both are non-zero.  As multisets
 *
 *   {p_i + s q_i} = B + delta,   B = P + sQ + z zeros,   delta = sum_{i in D} [p_i + s q_i] + [0] - [p_i] - [s q_i],   s = +-1,
 *
 * where z = n - n_p - n_q counts zeros (it may be negative: the identity is one of signed measures).  S is a quadratic form,
 *
 *   S(B + delta) = S(B) + sum_x delta(x) G(x) + S(delta),    G(x) = sum_{y in B} |x - y|,    S(delta) = - integral F_delta(t)^2 dt,
 *
 * because delta has total mass 0.  S(B) and G follow from the sorted P and Q and their prefix sums. */
#include "sl/sl_concept_pairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_spread_private.h"
#include "sl_tier.h"

enum { STEP = 32 };

/* A column: its non-zero entries, by sample and by value. */
typedef struct {
    const float *all;      /* (samples) */
    const float *held_by;  /* (n) its non-zero entries, by sample */
    const float *value;    /* (n) non-zero entries, ascending */
    const int32_t *rows;   /* (n) samples of the non-zero entries, ascending */
    const uint64_t *set;   /* the same, a bit for each sample */
    const int32_t *before; /* how many of them lie before each 64 samples */
    const double *below;   /* below[t] = sum of the STEP t smallest */
    const int64_t *held;   /* its cells, or NULL where it is too full (or too empty) for that to pay */
    ptrdiff_t n;
    double total;  /* sum of all entries */
    double spread; /* S(column), zeros included */
    double inside; /* S of the non-zero entries alone */
} column;

/* Sum of the k smallest non-zero entries. */
static double
sum_below(const column *c, ptrdiff_t k)
{
    double sum = c->below[k / STEP];

    for (ptrdiff_t i = k - k % STEP; i < k; i++) {
        sum += (double)c->value[i];
    }
    return sum;
}

static ptrdiff_t
words_of(ptrdiff_t n)
{
    return (n + 63) / 64;
}

static void
column_fill(column *c, const float *restrict all, ptrdiff_t n, int32_t *restrict rows, float *restrict held_by,
            uint64_t *restrict set, int32_t *restrict before, double *restrict below)
{
    ptrdiff_t found = 0;
    double sum = 0.0;

    for (ptrdiff_t w = 0; w < words_of(n); w++) {
        uint64_t bits = 0;
        before[w] = (int32_t)found;
        for (ptrdiff_t i = 64 * w; i < n && i < 64 * w + 64 && found < c->n; i++) { /* no branch on what is there */
            const int some = all[i] != 0.0f;
            held_by[found] = all[i];
            rows[found] = (int32_t)i;
            bits |= (uint64_t)some << (i % 64);
            found += some;
        }
        set[w] = bits;
    }
    for (ptrdiff_t k = 0; k < c->n; k++) {
        if (k % STEP == 0) {
            below[k / STEP] = sum;
        }
        sum += (double)c->value[k];
    }
    if (c->n % STEP == 0) {
        below[c->n / STEP] = sum;
    }
    c->all = all;
    c->rows = rows;
    c->held_by = held_by;
    c->set = set;
    c->before = before;
    c->below = below;
    c->total = sum;
    c->inside = sl_spread_sorted(c->value, c->n);
    c->spread = c->inside + (double)(n - c->n) * sum;
}

/* Number of entries <= x. */
static ptrdiff_t
rank_of(const column *c, double x)
{
    ptrdiff_t low = 0, count = c->n;

    while (count > 0) {
        const ptrdiff_t half = count / 2;
        if ((double)c->value[low + half] <= x) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return low;
}

/* sum over the column's non-zero entries y of |x - y|. */
static double
distance_sum(const column *c, double x)
{
    const ptrdiff_t k = rank_of(c, x);

    return x * (double)(2 * k - c->n) + c->total - 2.0 * sum_below(c, k);
}

/* sum over pairs (x in c, y in other) of |x - y|: one merge. */
static double
cross_sum(const column *c, const column *other)
{
    double sum = 0.0, below = 0.0;
    ptrdiff_t k = 0;

    for (ptrdiff_t i = 0; i < c->n; i++) {
        const float x = c->value[i];
        while (k < other->n && other->value[k] <= x) {
            below += (double)other->value[k++];
        }
        sum += (double)x * (double)(2 * k - other->n) + other->total - 2.0 * below;
    }
    return sum;
}

typedef struct {
    double x;
    int weight;
} atom;

static int
by_place(const void *a, const void *b)
{
    const atom *u = a, *v = b;

    return u->x != v->x ? (u->x > v->x) - (u->x < v->x) : u->weight - v->weight;
}

/* S(delta) of m atoms with total weight 0. */
static double
spread_of_atoms(atom *atoms, ptrdiff_t m)
{
    double sum = 0.0;
    int64_t mass = 0;

    qsort(atoms, (size_t)m, sizeof *atoms, by_place);
    for (ptrdiff_t k = 0; k + 1 < m; k++) {
        mass += atoms[k].weight;
        sum += (double)(mass * mass) * (atoms[k + 1].x - atoms[k].x);
    }
    return -sum;
}

/* S(p + sign q), given the samples `both` where neither is zero. */
static double
spread_sparse(const column *P, const column *Q, const int32_t *both, ptrdiff_t n_both, ptrdiff_t n, int sign,
              double cross, atom *atoms)
{
    const double zeros = (double)(n - P->n - Q->n);
    double sum = P->inside + Q->inside + zeros * (P->total + Q->total);

    sum += sign > 0 ? cross : (double)Q->n * P->total + (double)P->n * Q->total; /* every p lies above every -q */
    for (ptrdiff_t i = 0; i < n_both; i++) {
        const double x = (double)P->all[both[i]], y = sign * (double)Q->all[both[i]];
        const double point[4] = {x + y, 0.0, x, y};
        for (int t = 0; t < 4; t++) {
            const int weight = t < 2 ? 1 : -1;
            const double g = distance_sum(P, point[t]) + distance_sum(Q, sign * point[t]) + zeros * fabs(point[t]);
            sum += weight * g;
            atoms[4 * i + t] = (atom){point[t], weight};
        }
    }
    return sum + spread_of_atoms(atoms, 4 * n_both);
}

/* A thread's own. */
typedef struct {
    float *p, *q; /* (n) each: values side by side */
    int32_t *both;
    atom *atoms;
} workspace;

/* Samples where neither column is zero, or `limit` if there are that many. */
static ptrdiff_t
find_both(const column *P, const column *Q, ptrdiff_t n, int32_t *restrict both, ptrdiff_t limit)
{
    const uint64_t *restrict p = P->set, *restrict q = Q->set;
    const ptrdiff_t words = words_of(n);
    ptrdiff_t found = 0;

    for (ptrdiff_t w = 0; w < words; w++) {
        for (uint64_t bits = p[w] & q[w]; bits != 0; bits &= bits - 1) {
            if (found == limit) {
                return limit;
            }
            both[found++] = (int32_t)(64 * w + __builtin_ctzll(bits));
        }
    }
    return found;
}

/* The values of both columns at samples where neither is zero; returns how many. */
static ptrdiff_t
take_both(const column *P, const column *Q, ptrdiff_t n, float *p, float *q)
{
    return sl_tier_get()->cells_both(P->set, P->before, P->held_by, Q->set, Q->before, Q->held_by, words_of(n), p, q);
}

static ptrdiff_t
most_both(ptrdiff_t n)
{
    return n / 2000 + 4;
}

/* Samples where either column is not zero, their values side by side. */
static ptrdiff_t
gather(const column *P, const column *Q, float *restrict p, float *restrict q)
{
    ptrdiff_t m = P->n;

    for (ptrdiff_t i = 0; i < P->n; i++) {
        p[i] = P->all[P->rows[i]];
        q[i] = Q->all[P->rows[i]];
    }
    for (ptrdiff_t i = 0; i < Q->n; i++) {
        p[m] = 0.0f;
        q[m] = Q->all[Q->rows[i]];
        m += P->all[Q->rows[i]] == 0.0f; /* else it is there already, and the next one takes the place */
    }
    return m;
}

/* S(p + q) + S(p - q) from the cells of both columns; NaN where that cannot be. */
static double
spreads_by_cells(const column *P, const column *Q, ptrdiff_t n, const workspace *w, const sl_spread *spread,
                 ptrdiff_t t)
{
    const sl_spread_column own = {P->value, P->n, P->held}, other = {Q->value, Q->n, Q->held};
    const ptrdiff_t n_both = take_both(P, Q, n, w->p, w->q);

    const double sum = sl_spread_of_columns(spread, t, &own, &other, w->p, w->q, n_both, n, 1);
    return isnan(sum) ? sum : sum + sl_spread_of_columns(spread, t, &own, &other, w->p, w->q, n_both, n, -1);
}

/* S(p + q) + S(p - q) from the values. */
static double
spreads_by_values(const column *P, const column *Q, ptrdiff_t n, const workspace *w, const sl_spread *spread,
                  ptrdiff_t t)
{
    const float most_p = P->value[P->n - 1], most_q = Q->value[Q->n - 1];
    const int some = P->n + Q->n < n; /* gathering pays */
    const float *p = some ? w->p : P->all, *q = some ? w->q : Q->all;
    const ptrdiff_t m = some ? gather(P, Q, w->p, w->q) : n;

    return sl_spread_values(spread, t, p, q, m, n - m, 1, 0.0f, most_p + most_q) +
           sl_spread_values(spread, t, p, q, m, n - m, -1, most_q, most_p);
}

static double
distance_of(const column *P, const column *Q, ptrdiff_t n, const workspace *w, const sl_spread *spread, ptrdiff_t t)
{
    const ptrdiff_t limit = most_both(P->n + Q->n), n_both = find_both(P, Q, n, w->both, limit);
    double spreads;

    if (n_both < limit) {
        const double cross = cross_sum(P, Q);
        spreads = spread_sparse(P, Q, w->both, n_both, n, 1, cross, w->atoms) +
                  spread_sparse(P, Q, w->both, n_both, n, -1, cross, w->atoms);
    } else {
        spreads = P->held != NULL && Q->held != NULL ? spreads_by_cells(P, Q, n, w, spread, t) : (double)NAN;
        spreads = isnan(spreads) ? spreads_by_values(P, Q, n, w, spread, t) : spreads;
    }
    const double sum = spreads - P->spread - Q->spread;
    return sum > 0.0 ? sum / ((double)n * (double)(n - 1)) : 0.0; /* rounding alone can make it negative */
}

/* All columns of one side with the memory behind them. */
typedef struct {
    column *columns;
    int32_t *rows, *before;
    float *held_by;
    uint64_t *set;
    double *below;
    int64_t *held;
} side;

static void
side_free(side *s)
{
    sl_free(s->held);
    sl_free(s->below);
    sl_free(s->set);
    sl_free(s->held_by);
    sl_free(s->before);
    sl_free(s->rows);
    sl_free(s->columns);
}

static ptrdiff_t
zeros_of(const float *sorted, ptrdiff_t n)
{
    ptrdiff_t low = 0, high = n;

    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (sorted[middle] > 0.0f) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* Whether a column of n non-zero entries is worth cells of its own. */
static int
by_cells(ptrdiff_t n, ptrdiff_t samples)
{
    return n >= 400 && n < samples / 2;
}

static sl_status
side_make(side *s, const sl_concepts *x, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t n, int threads)
{
    const ptrdiff_t K = end - begin;
    ptrdiff_t entries = 0, steps = 0, cells = 0;

    s->columns = sl_alloc(K, sizeof *s->columns);
    if (s->columns == NULL) {
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        const float *sorted = x->sorted + (begin + k) * n;
        const ptrdiff_t zeros = zeros_of(sorted, n);
        if (!(sorted[n - 1] <= 2.0f)) {
            return SL_ERR_ARG;
        }
        s->columns[k].value = sorted + zeros;
        s->columns[k].n = n - zeros;
        entries += n - zeros;
        steps += (n - zeros) / STEP + 1;
        cells += by_cells(n - zeros, n) ? SL_SPREAD_CELLS : 0;
    }
    s->held = sl_alloc(cells, sizeof *s->held);
    s->rows = sl_alloc(entries, sizeof *s->rows);
    s->held_by = sl_alloc(entries, sizeof *s->held_by);
    s->set = sl_alloc(K * words_of(n), sizeof *s->set);
    s->before = sl_alloc(K * words_of(n), sizeof *s->before);
    s->below = sl_alloc(steps, sizeof *s->below);
    if (s->rows == NULL || s->held_by == NULL || s->set == NULL || s->before == NULL || s->below == NULL ||
        s->held == NULL) {
        return SL_ERR_NOMEM;
    }
    entries = steps = cells = 0;
    for (ptrdiff_t k = 0; k < K; k++) { /* where each column's parts begin */
        s->columns[k].rows = s->rows + entries;
        s->columns[k].held_by = s->held_by + entries;
        s->columns[k].below = s->below + steps;
        s->columns[k].held = by_cells(s->columns[k].n, n) ? s->held + cells : NULL;
        entries += s->columns[k].n;
        steps += s->columns[k].n / STEP + 1;
        cells += s->columns[k].held != NULL ? SL_SPREAD_CELLS : 0;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t k = 0; k < K; k++) {
        column *c = &s->columns[k];
        if (c->held != NULL) {
            sl_spread_count(c->value, c->n, s->held + (c->held - s->held));
        }
        column_fill(c, x->values + (begin + k) * n, n, s->rows + (c->rows - s->rows), s->held_by + (c->rows - s->rows),
                    s->set + k * words_of(n), s->before + k * words_of(n), s->below + (c->below - s->below));
    }
    return SL_OK;
}

/* For all threads. */
typedef struct {
    float *floats;
    int32_t *both;
    atom *atoms;
    sl_spread *spread;
    ptrdiff_t n;
} workspaces;

static void
workspaces_free(workspaces *all)
{
    sl_spread_free(all->spread);
    sl_free(all->atoms);
    sl_free(all->both);
    sl_free(all->floats);
}

static sl_status
workspaces_make(workspaces *all, ptrdiff_t n, int threads)
{
    const ptrdiff_t both = (n / 2 + most_both(2 * n)) * threads, atoms = 4 * most_both(2 * n) * threads;

    all->n = n;
    all->floats = sl_alloc(2 * n * threads, sizeof *all->floats);
    all->both = sl_alloc(both, sizeof *all->both);
    all->atoms = sl_alloc(atoms, sizeof *all->atoms);
    return all->floats == NULL || all->both == NULL || all->atoms == NULL ? SL_ERR_NOMEM
                                                                          : sl_spread_new(n, threads, &all->spread);
}

static double
distance_here(const column *P, const column *Q, const workspaces *all)
{
    const ptrdiff_t t = sl_thread_index(), n = all->n, few = most_both(2 * n), both = n / 2 + few;
    const workspace w = {all->floats + 2 * n * t, all->floats + 2 * n * t + n, all->both + both * t,
                         all->atoms + 4 * few * t};

    return distance_of(P, Q, n, &w, all->spread, t);
}

sl_status
sl_concept_distances_f32(const sl_concepts *p, const sl_concepts *q, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                         double *restrict distance, double *restrict lone, int n_threads)
{
    side P = {.columns = NULL}, Q = {.columns = NULL};
    workspaces all = {NULL, NULL, NULL, NULL, 0};
    sl_status status = SL_ERR_NOMEM;
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);

    if (n_threads < 1 || n < 2 || n > 1 << 23 || p->k < 0 || q->k < 0 || begin < 0 || end < begin || end > p->k) {
        return SL_ERR_ARG;
    }
    if ((status = side_make(&P, p, begin, end, n, threads)) != SL_OK ||
        (status = side_make(&Q, q, 0, q->k, n, threads)) != SL_OK ||
        (status = workspaces_make(&all, n, threads)) != SL_OK) {
        goto done;
    }
    for (ptrdiff_t a = begin; a < end; a++) {
        lone[a] = P.columns[a - begin].spread / ((double)n * (double)(n - 1));
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t t = 0; t < (end - begin) * q->k; t++) {
        const ptrdiff_t a = t / q->k, b = t % q->k;
        if (p->values != q->values) {
            distance[(begin + a) * q->k + b] = distance_here(&P.columns[a], &Q.columns[b], &all);
        } else if (b >= begin + a) { /* one side with itself: half of it, exact zeros on the diagonal */
            const double d = b == begin + a ? 0.0 : distance_here(&P.columns[a], &Q.columns[b], &all);
            distance[(begin + a) * q->k + b] = distance[b * q->k + begin + a] = d;
        }
    }
    status = SL_OK;
done:
    workspaces_free(&all);
    side_free(&Q);
    side_free(&P);
    return status;
}
