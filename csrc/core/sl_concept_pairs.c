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
#include "sl_cells_private.h"
#include "sl_tier.h"

enum { CELLS = 2 * (SL_CELL_OCTAVES << SL_CELL_FINEST) + 1 };
enum { SMALL = 24, MAX_BUCKETS = 8192, MAX_DEPTH = 8, STEP = 32, FEW = 2500, SUM_BITS = 40 };

/* A column: its non-zero entries, by sample and by value. */
typedef struct {
    const float *all;    /* (samples) */
    const float *value;  /* (n) non-zero entries, ascending */
    const int32_t *rows; /* (n) samples of the non-zero entries, ascending */
    const double *below; /* below[t] = sum of the STEP t smallest */
    ptrdiff_t n;
    double total;  /* sum of all entries */
    double spread; /* S(column), zeros included */
    double inside; /* S of the non-zero entries alone */
} column;

static int
by_value(const void *x, const void *y)
{
    const float a = *(const float *)x, b = *(const float *)y;

    return (a > b) - (a < b);
}

/* S of a sorted array. */
static double
spread_sorted(const float *v, ptrdiff_t n)
{
    double sum = 0.0;

    for (ptrdiff_t k = 0; k < n; k++) {
        sum += (double)(2 * k - n + 1) * (double)v[k];
    }
    return sum;
}

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

static void
column_fill(column *c, const float *restrict all, ptrdiff_t n, int32_t *restrict rows, double *restrict below)
{
    ptrdiff_t found = 0;
    double sum = 0.0;

    for (ptrdiff_t i = 0; i < n && found < c->n; i++) {
        if (all[i] != 0.0f) {
            rows[found++] = (int32_t)i;
        }
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
    c->below = below;
    c->total = sum;
    c->inside = spread_sorted(c->value, c->n);
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

/* S of a few values, pair by pair. */
static double
spread_direct(const float *restrict v, ptrdiff_t n)
{
    double sum = 0.0;

    for (ptrdiff_t i = 1; i < n; i++) {
        float row = 0.0f;
        for (ptrdiff_t j = 0; j < i; j++) {
            row += fabsf(v[i] - v[j]);
        }
        sum += (double)row;
    }
    return sum;
}

/* S of n values in any order.  v is overwritten, spare (n) is workspace.  Values are spread over equal cells of their range; a crowded cell is
 * treated again by itself, a cell of equal values costs nothing.  Past MAX_DEPTH (values that crowd at many scales) it sorts. */
static double
spread_any(float *restrict v, float *restrict spare, uint16_t *restrict slot, int32_t *restrict starts, ptrdiff_t n,
           int depth)
{
    int32_t *start = starts + (ptrdiff_t)depth * (MAX_BUCKETS + 1);
    float low = v[0], high = v[0];
    double sum = 0.0, below = 0.0;
    ptrdiff_t cells = 1;

    if (n <= SMALL) {
        return spread_direct(v, n);
    }
    for (ptrdiff_t i = 1; i < n; i++) {
        low = v[i] < low ? v[i] : low;
        high = v[i] > high ? v[i] : high;
    }
    if (!(high > low)) {
        return 0.0;
    }
    if (depth == MAX_DEPTH) {
        qsort(v, (size_t)n, sizeof *v, by_value);
        return spread_sorted(v, n);
    }
    while (cells < n / 8 && cells < MAX_BUCKETS) {
        cells *= 2;
    }
    const double scale = ((double)cells - 0.5) / ((double)high - (double)low);
    memset(start, 0, (size_t)(cells + 1) * sizeof *start);
    for (ptrdiff_t i = 0; i < n; i++) {
        slot[i] = (uint16_t)(((double)v[i] - (double)low) * scale);
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        start[slot[i] + 1]++;
    }
    for (ptrdiff_t c = 0; c < cells; c++) {
        start[c + 1] += start[c];
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        spare[start[slot[i]]++] = v[i];
    }
    for (ptrdiff_t c = 0, begin = 0; c < cells; c++) { /* start[c] is now the end of cell c */
        const ptrdiff_t end = start[c], count = end - begin;
        double cell = 0.0;
        for (ptrdiff_t i = begin; i < end; i++) {
            cell += (double)spare[i];
        }
        sum += cell * (double)begin - below * (double)count;
        below += cell;
        if (count > 1) {
            sum += spread_any(spare + begin, v + begin, slot + begin, starts, count, depth + 1);
        }
        begin = end;
    }
    return sum;
}

/* A cell whose numbers are treated pair by pair. */
typedef struct {
    int32_t cell, count;
    ptrdiff_t first; /* place of its numbers */
} crowd;

/* A thread's workspace.  cells: how many numbers a cell holds, shifted by SUM_BITS, plus the sum of the fractions' trailing bits; all 0 between calls. */
typedef struct {
    float *p, *q, *v, *spare; /* (n) each */
    uint16_t *slot;
    int32_t *starts, *both, *cell;
    int64_t *cells;
    crowd *crowds;
    atom *atoms;
} workspace;

/* What a walk over the cells collects, in ascending order of their numbers. */
typedef struct {
    double crowding; /* count times width from which a cell's pairs are formed */
    double sum;
    int64_t total, below; /* numbers in all, and in the cells behind */
    ptrdiff_t crowds, crowded;
    int fine;
} walk;

/* Walks the cells of one octave, [2^e, 2^(e+1)) or its negative, in ascending order. */
static void
visit_octave(const workspace *w, walk *k, int octave, int sign, ptrdiff_t most)
{
    const ptrdiff_t fine = (ptrdiff_t)1 << k->fine, last = most < fine ? most : fine;
    const double least = ldexp(1.0, octave - 30), step = least * 0x1p-23, width = least / (double)fine;
    const double limit = 1.0 + k->crowding / width, inside = width * (1.0 / 6.0);
    int64_t *cells = w->cells + sl_cell_zero(k->fine) + sign * (1 + octave * fine);
    double sum = 0.0;

    for (ptrdiff_t c = 0; c < last; c++) {
        const ptrdiff_t t = sign > 0 ? c : last - 1 - c;
        const int64_t held = cells[sign * t];
        if (held != 0) {
            const int64_t count = held >> SUM_BITS, rest = held & ((INT64_C(1) << SUM_BITS) - 1);
            const double n = (double)count, values = n * (least + width * (double)t) + (double)rest * step;
            sum += sign * values * (double)(2 * k->below + count - k->total);
            k->below += count;
            cells[sign * t] = 0;
            if (n > limit) {
                cells[sign * t] = k->crowded + 1;
                w->crowds[k->crowds++] = (crowd){(int32_t)(sl_cell_zero(k->fine) + sign * (1 + octave * fine + t)),
                                                 (int32_t)count, k->crowded};
                k->crowded += count;
            } else {
                sum += n * (n - 1.0) * inside; /* as if spread evenly */
            }
        }
    }
    k->sum += sum;
}

/* Walks the first `cells` cells of one sign. */
static void
visit_side(const workspace *w, walk *k, int sign, ptrdiff_t cells)
{
    const int octaves = (int)((cells + (1 << k->fine) - 1) >> k->fine);

    for (int e = 0; e < octaves; e++) {
        const int octave = sign > 0 ? e : octaves - 1 - e;
        visit_octave(w, k, octave, sign, cells - ((ptrdiff_t)octave << k->fine));
    }
}

/* Cells that hold the numbers up to `most` in magnitude. */
static ptrdiff_t
cells_below(float most, int fine)
{
    int32_t bits;

    memcpy(&bits, &most, sizeof bits);
    bits = (bits >> (23 - fine)) - (sl_cell_lowest(fine) - 1);
    return bits < 0 ? 0 : bits < sl_cell_zero(fine) ? bits : sl_cell_zero(fine);
}

/* S of the m values p + sign q and of `zeros` zeros, none of them beyond most_below and most_above.  Pairs of different cells are exact from counts
 * and sums.  Within a cell, numbers count as evenly spread unless they are so many that this could matter: then they are gathered and treated
 * exactly.  What remains is at most 2e-8 of the number of pairs, and far less unless the values conspire. */
static double
spread_cells(const workspace *w, const float *p, const float *q, ptrdiff_t m, ptrdiff_t zeros, int sign,
             float most_below, float most_above)
{
    const int fine = m > 30000 ? SL_CELL_FINEST : m > 10000 ? 8 : 7;
    const ptrdiff_t zero = sl_cell_zero(fine);
    walk k = {.fine = fine, .total = m + zeros, .crowding = 3e-8 * (double)(m + zeros)};
    const int64_t one = INT64_C(1) << SUM_BITS, trailing = (1 << (23 - fine)) - 1;

    sl_tier_get()->cells_find(p, q, (float)sign, fine, m, w->v, w->cell);
    for (ptrdiff_t i = 0; i < m; i++) {
        int32_t bits;
        memcpy(&bits, w->v + i, sizeof bits);
        w->cells[w->cell[i]] += one + (bits & trailing);
    }
    visit_side(w, &k, -1, cells_below(most_below, fine));
    k.below += (w->cells[zero] >> SUM_BITS) + zeros;
    w->cells[zero] = 0;
    visit_side(w, &k, 1, cells_below(most_above, fine));
    for (ptrdiff_t i = 0; i < m && k.crowds > 0; i++) {
        const int64_t place = w->cells[w->cell[i]];
        if (place > 0) {
            w->spare[place - 1] = w->v[i];
            w->cells[w->cell[i]] = place + 1;
        }
    }
    for (ptrdiff_t c = 0; c < k.crowds; c++) {
        const crowd *some = &w->crowds[c];
        k.sum +=
            spread_any(w->spare + some->first, w->v + some->first, w->slot + some->first, w->starts, some->count, 0);
        w->cells[some->cell] = 0;
    }
    return k.sum;
}

/* S of the m values p + sign q and of `zeros` zeros. */
static double
spread_values(const workspace *w, const float *p, const float *q, ptrdiff_t m, ptrdiff_t zeros, int sign,
              float most_below, float most_above)
{
    const float s = (float)sign;
    double magnitude = 0.0;

    if (m > FEW) {
        return spread_cells(w, p, q, m, zeros, sign, most_below, most_above);
    }
    for (ptrdiff_t i = 0; i < m; i++) {
        w->v[i] = p[i] + s * q[i];
        magnitude += fabs((double)w->v[i]);
    }
    return (double)zeros * magnitude + (m > 0 ? spread_any(w->v, w->spare, w->slot, w->starts, m, 0) : 0.0);
}

/* Samples where neither column is zero, or `limit` if there are that many. */
static ptrdiff_t
find_both(const column *P, const column *Q, int32_t *both, ptrdiff_t limit)
{
    const column *few = P->n <= Q->n ? P : Q, *many = P->n <= Q->n ? Q : P;
    ptrdiff_t found = 0;

    for (ptrdiff_t i = 0; i < few->n && found < limit; i++) {
        both[found] = few->rows[i];
        found += many->all[few->rows[i]] != 0.0f;
    }
    return found;
}

static ptrdiff_t
most_both(ptrdiff_t n)
{
    return n / 200 + 16;
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
        const int alone = P->all[Q->rows[i]] == 0.0f;
        if (alone) {
            p[m] = 0.0f;
            q[m] = Q->all[Q->rows[i]];
            m++;
        }
    }
    return m;
}

static double
distance_of(const column *P, const column *Q, ptrdiff_t n, const workspace *w)
{
    const ptrdiff_t limit = most_both(P->n + Q->n), n_both = find_both(P, Q, w->both, limit);
    double sum = -P->spread - Q->spread;

    if (n_both < limit) {
        const double cross = cross_sum(P, Q);
        sum += spread_sparse(P, Q, w->both, n_both, n, 1, cross, w->atoms) +
               spread_sparse(P, Q, w->both, n_both, n, -1, cross, w->atoms);
    } else {
        const float most_p = P->value[P->n - 1], most_q = Q->value[Q->n - 1];
        const int some = P->n + Q->n < n; /* gathering pays */
        const float *p = some ? w->p : P->all, *q = some ? w->q : Q->all;
        const ptrdiff_t m = some ? gather(P, Q, w->p, w->q) : n;
        sum += spread_values(w, p, q, m, n - m, 1, 0.0f, most_p + most_q) +
               spread_values(w, p, q, m, n - m, -1, most_q, most_p);
    }
    return sum > 0.0 ? sum / ((double)n * (double)(n - 1)) : 0.0; /* rounding alone can make it negative */
}

/* All columns of one side with the memory behind them. */
typedef struct {
    column *columns;
    int32_t *rows;
    double *below;
} side;

static void
side_free(side *s)
{
    sl_free(s->below);
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

static sl_status
side_make(side *s, const sl_concepts *x, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t n, int threads)
{
    const ptrdiff_t K = end - begin;
    ptrdiff_t entries = 0, steps = 0;

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
    }
    s->rows = sl_alloc(entries, sizeof *s->rows);
    s->below = sl_alloc(steps, sizeof *s->below);
    if (s->rows == NULL || s->below == NULL) {
        return SL_ERR_NOMEM;
    }
    entries = steps = 0;
    for (ptrdiff_t k = 0; k < K; k++) { /* where each column's parts begin */
        s->columns[k].rows = s->rows + entries;
        s->columns[k].below = s->below + steps;
        entries += s->columns[k].n;
        steps += s->columns[k].n / STEP + 1;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t k = 0; k < K; k++) {
        column *c = &s->columns[k];
        column_fill(c, x->values + (begin + k) * n, n, s->rows + (c->rows - s->rows), s->below + (c->below - s->below));
    }
    return SL_OK;
}

/* Workspaces for all threads, or NULL where memory is out; `w` holds `threads` of them. */
typedef struct {
    workspace *each;
    float *floats;
    uint16_t *slots;
    int32_t *ints;
    int64_t *cells;
    crowd *crowds;
    atom *atoms;
} workspaces;

static void
workspaces_free(workspaces *all)
{
    sl_free(all->atoms);
    sl_free(all->crowds);
    sl_free(all->cells);
    sl_free(all->ints);
    sl_free(all->slots);
    sl_free(all->floats);
    sl_free(all->each);
}

static sl_status
workspaces_make(workspaces *all, ptrdiff_t n, int threads)
{
    const ptrdiff_t both = most_both(2 * n), starts = MAX_DEPTH * (MAX_BUCKETS + 1), ints = starts + both + n;

    all->each = sl_alloc(threads, sizeof *all->each);
    all->floats = sl_alloc(4 * n * threads, sizeof *all->floats);
    all->slots = sl_alloc(n * threads, sizeof *all->slots);
    all->ints = sl_alloc(ints * threads, sizeof *all->ints);
    all->cells = sl_alloc(CELLS * (ptrdiff_t)threads, sizeof *all->cells);
    all->crowds = sl_alloc(CELLS * (ptrdiff_t)threads, sizeof *all->crowds);
    all->atoms = sl_alloc(4 * both * threads, sizeof *all->atoms);
    if (all->each == NULL || all->floats == NULL || all->slots == NULL || all->ints == NULL || all->cells == NULL ||
        all->crowds == NULL || all->atoms == NULL) {
        return SL_ERR_NOMEM;
    }
    memset(all->cells, 0, (size_t)(CELLS * (ptrdiff_t)threads) * sizeof *all->cells);
    for (int t = 0; t < threads; t++) {
        float *floats = all->floats + 4 * n * t;
        int32_t *numbers = all->ints + ints * t;
        all->each[t] = (workspace){
            .p = floats,
            .q = floats + n,
            .v = floats + 2 * n,
            .spare = floats + 3 * n,
            .slot = all->slots + n * t,
            .starts = numbers,
            .both = numbers + starts,
            .cell = numbers + starts + both,
            .cells = all->cells + CELLS * (ptrdiff_t)t,
            .crowds = all->crowds + CELLS * (ptrdiff_t)t,
            .atoms = all->atoms + 4 * both * t,
        };
    }
    return SL_OK;
}

sl_status
sl_concept_distances_f32(const sl_concepts *p, const sl_concepts *q, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                         double *restrict distance, double *restrict lone, int n_threads)
{
    side P = {NULL, NULL, NULL}, Q = {NULL, NULL, NULL};
    workspaces all = {NULL, NULL, NULL, NULL, NULL, NULL, NULL};
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
            distance[(begin + a) * q->k + b] =
                distance_of(&P.columns[a], &Q.columns[b], n, &all.each[sl_thread_index()]);
        } else if (b >= begin + a) { /* one side with itself: half of it, exact zeros on the diagonal */
            const double d =
                b == begin + a ? 0.0 : distance_of(&P.columns[a], &Q.columns[b], n, &all.each[sl_thread_index()]);
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
