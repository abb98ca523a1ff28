/* S(v) = sum_{i<j} |v_i - v_j| of values in any order.  Contract: sl_spread_private.h. */
#include "sl_spread_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sl_tier.h"

enum { CELLS = 2 * (SL_CELL_OCTAVES << SL_CELL_FINEST) + 1 };
enum { SMALL = 24, MAX_BUCKETS = 8192, MAX_DEPTH = 8, FEW = 800, SUM_BITS = 40, MOST_CROWDED = 4096 };

static int
by_value(const void *x, const void *y)
{
    const float a = *(const float *)x, b = *(const float *)y;

    return (a > b) - (a < b);
}

double
sl_spread_sorted(const float *v, ptrdiff_t n)
{
    double sum = 0.0;

    for (ptrdiff_t k = 0; k < n; k++) {
        sum += (double)(2 * k - n + 1) * (double)v[k];
    }
    return sum;
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
        return sl_spread_sorted(v, n);
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

/* cells: how many numbers a cell holds, shifted by SUM_BITS, plus the sum of the fractions' trailing bits. */
struct sl_spread {
    float *v, *spare; /* (2 n) each */
    uint16_t *slot;   /* (2 n) */
    int32_t *starts, *cell;
    int64_t *cells;
    crowd *crowds; /* one more than there can be: the next is written before it is known to be one */
};

/* What a walk over the cells collects, in ascending order of their numbers. */
typedef struct {
    double crowding; /* count times width from which a cell's pairs are formed */
    double sum;
    int64_t total, below; /* numbers in all, and in the cells behind */
    ptrdiff_t crowds, crowded;
    int fine;
} walk;

/* Walks the cells of one octave, where the shifted magnitudes double, on the side of `sign`, in ascending order. */
static void
visit_octave(const sl_spread *w, walk *k, int octave, int sign, ptrdiff_t most)
{
    const ptrdiff_t fine = (ptrdiff_t)1 << k->fine, last = most < fine ? most : fine;
    const double least = ldexp((double)SL_CELL_SHIFT, octave), step = least * 0x1p-23, width = least / (double)fine;
    const double limit = 1.0 + k->crowding / width, inside = width * (1.0 / 6.0), start = least - (double)SL_CELL_SHIFT;
    int64_t *restrict cells = w->cells + sl_cell_zero(k->fine) + sign * (1 + octave * fine);
    const int64_t total = k->total;
    const ptrdiff_t first = sl_cell_zero(k->fine) + sign * (1 + octave * fine);
    crowd *restrict crowds = w->crowds;
    ptrdiff_t n_crowds = k->crowds, crowded = k->crowded;
    int64_t below = k->below;
    double sum = 0.0;

    for (ptrdiff_t c = 0; c < last; c++) {
        const ptrdiff_t t = sign > 0 ? c : last - 1 - c;
        const int64_t held = cells[sign * t]; /* no branch for empty cells: half of them are */
        const int64_t count = held >> SUM_BITS, rest = held & ((INT64_C(1) << SUM_BITS) - 1);
        const double n = (double)count, values = n * (start + width * (double)t) + (double)rest * step;
        const double evenly = n > limit ? 0.0 : n * (n - 1.0) * inside;
        sum += sign * values * (double)(2 * below + count - total) + evenly;
        below += count;
        const int64_t many = -(int64_t)(n > limit); /* all bits, or none: a branch would often go the wrong way */
        crowds[n_crowds] = (crowd){(int32_t)(first + sign * t), (int32_t)count, crowded};
        cells[sign * t] = (crowded + 1) & many;
        n_crowds -= many;
        crowded += count & many;
    }
    k->crowds = n_crowds;
    k->crowded = crowded;
    k->below = below;
    k->sum += sum;
}

/* Walks the first `cells` cells of one sign. */
static void
visit_side(const sl_spread *w, walk *k, int sign, ptrdiff_t cells)
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
    const float shifted = most + SL_CELL_SHIFT;
    int32_t bits;

    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits >> (23 - fine)) - (sl_cell_lowest(fine) - 1);
    return bits < sl_cell_zero(fine) ? bits : sl_cell_zero(fine);
}

static double
spread_cells(const sl_spread *w, const float *p, const float *q, ptrdiff_t m, ptrdiff_t zeros, int sign,
             float most_below, float most_above)
{
    const int fine = m > 30000 ? SL_CELL_FINEST : m > 15000 ? 8 : m > 3000 ? 7 : 6;
    const ptrdiff_t zero = sl_cell_zero(fine);
    walk k = {.fine = fine, .total = m + zeros, .crowding = 3e-8 * (double)(m + zeros)};
    const int64_t one = INT64_C(1) << SUM_BITS, trailing = (1 << (23 - fine)) - 1;

    sl_tier_get()->cells_find(p, q, (float)sign, fine, m, w->v, w->cell);
    int64_t *restrict cells = w->cells;
    const int32_t *restrict cell = w->cell;
    const float *restrict v = w->v;
    for (ptrdiff_t i = 0; i < m; i++) {
        int32_t bits;
        memcpy(&bits, v + i, sizeof bits);
        cells[cell[i]] += one + (bits & trailing);
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

double
sl_spread_values(const sl_spread *all, ptrdiff_t t, const float *p, const float *q, ptrdiff_t m, ptrdiff_t zeros,
                 int sign, float most_below, float most_above)
{
    const sl_spread *w = all + t;
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

/* What a number above 0 adds to the packed cell that it is in; *up: which, counted from 1. */
static int64_t
share_of(float value, ptrdiff_t *up)
{
    const float shifted = value + SL_CELL_SHIFT;
    int32_t bits;

    memcpy(&bits, &shifted, sizeof bits);
    *up = (bits >> (23 - SL_SPREAD_FINE)) - (sl_cell_lowest(SL_SPREAD_FINE) - 1);
    return (INT64_C(1) << SUM_BITS) + (bits & ((1 << (23 - SL_SPREAD_FINE)) - 1));
}

void
sl_spread_count(const float *value, ptrdiff_t n, int64_t *held)
{
    memset(held, 0, SL_SPREAD_CELLS * sizeof *held);
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t up;
        const int64_t share = share_of(value[i], &up);
        held[up - 1] += share;
    }
}

/* First of the ascending numbers that lies in cell `up` or beyond. */
static ptrdiff_t
first_in(const sl_spread_column *c, ptrdiff_t up)
{
    ptrdiff_t low = 0, high = c->n;

    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        ptrdiff_t here;
        share_of(c->value[middle], &here);
        if (here < up) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Appends the column's numbers in cell `up`; returns how many. */
static ptrdiff_t
append(const sl_spread_column *c, ptrdiff_t up, float *to)
{
    const ptrdiff_t begin = first_in(c, up), count = (ptrdiff_t)(c->held[up - 1] >> SUM_BITS);

    memcpy(to, c->value + begin, (size_t)count * sizeof *to);
    return count;
}

/* Takes one number out of the crowd in its cell, if that is one. */
static void
take_out(const sl_spread *w, ptrdiff_t cell, float value)
{
    if (w->cells[cell] > 0) {
        crowd *some = &w->crowds[w->cells[cell] - 1];
        float *numbers = w->spare + some->first;
        for (int32_t i = 0; i < some->count; i++) {
            if (numbers[i] == value) {
                numbers[i] = numbers[--some->count];
                return;
            }
        }
    }
}

/* S inside the crowded cells: the columns' numbers there, without those of the m samples, and with their sums. */
static double
spread_crowds(const sl_spread *w, ptrdiff_t crowds, const sl_spread_column *P, const sl_spread_column *Q,
              const float *p, const float *q, ptrdiff_t m, int sign)
{
    const ptrdiff_t zero = sl_cell_zero(SL_SPREAD_FINE);
    ptrdiff_t place = 0;
    double sum = 0.0;

    for (ptrdiff_t c = 0; c < crowds; c++) {
        crowd *some = &w->crowds[c];
        const ptrdiff_t up = some->cell > zero ? some->cell - zero : zero - some->cell;
        float *to = w->spare + place;
        ptrdiff_t held = 0;
        if (some->cell > zero) {
            held += append(P, up, to);
        }
        if ((some->cell > zero) == (sign > 0)) {
            held += append(Q, up, to + held);
        }
        w->cells[some->cell] = c + 1;
        some->first = place;
        place += held + some->count; /* no more can come than there will be */
        some->count = (int32_t)held;
    }
    for (ptrdiff_t i = 0; i < m; i++) {
        ptrdiff_t up, other;
        share_of(p[i], &up);
        share_of(q[i], &other);
        take_out(w, zero + up, p[i]);
        take_out(w, zero + sign * other, q[i]);
    }
    for (ptrdiff_t i = 0; i < m; i++) {
        if (w->cells[w->cell[i]] > 0) {
            crowd *some = &w->crowds[w->cells[w->cell[i]] - 1];
            w->spare[some->first + some->count++] = fabsf(p[i] + (float)sign * q[i]);
        }
    }
    for (ptrdiff_t c = 0; c < crowds; c++) {
        const crowd *some = &w->crowds[c];
        sum += spread_any(w->spare + some->first, w->v + some->first, w->slot + some->first, w->starts, some->count, 0);
        w->cells[some->cell] = 0;
    }
    return sum;
}

double
sl_spread_of_columns(const sl_spread *all, ptrdiff_t t, const sl_spread_column *P, const sl_spread_column *Q,
                     const float *p, const float *q, ptrdiff_t m, ptrdiff_t samples, int sign)
{
    const sl_spread *w = all + t;
    const float most_p = P->value[P->n - 1], most_q = Q->value[Q->n - 1];
    const ptrdiff_t zero = sl_cell_zero(SL_SPREAD_FINE), zeros = samples - (P->n + Q->n - m);
    const ptrdiff_t above = cells_below(sign > 0 ? most_p + most_q : most_p, SL_SPREAD_FINE);
    const ptrdiff_t below = sign > 0 ? 0 : cells_below(most_q, SL_SPREAD_FINE);
    const int64_t one = INT64_C(1) << SUM_BITS, trailing = (1 << (23 - SL_SPREAD_FINE)) - 1;
    int64_t *restrict up_cells = w->cells + zero + 1, *restrict down_cells = w->cells + zero - 1;
    walk k = {.fine = SL_SPREAD_FINE, .total = samples, .crowding = 3e-8 * (double)samples};

    const int64_t *restrict of_p = P->held, *restrict of_q = Q->held;
    if (sign > 0) {
        for (ptrdiff_t c = 0; c < above; c++) {
            up_cells[c] = of_p[c] + of_q[c];
        }
    } else {
        memcpy(up_cells, of_p, (size_t)above * sizeof *up_cells);
    }
    for (ptrdiff_t c = 0; c < below; c++) {
        down_cells[-c] = of_q[c];
    }
    sl_tier_get()->cells_find(p, q, (float)sign, SL_SPREAD_FINE, m, w->v, w->cell);
    int64_t *restrict cells = w->cells;
    const int32_t *restrict cell = w->cell;
    const float *restrict v = w->v;
    for (ptrdiff_t i = 0; i < m; i++) {
        ptrdiff_t up, other;
        int32_t bits;
        const int64_t share = share_of(p[i], &up), other_share = share_of(q[i], &other);
        memcpy(&bits, v + i, sizeof bits);
        cells[zero + up] -= share;
        cells[zero + sign * other] -= other_share;
        cells[cell[i]] += one + (bits & trailing);
    }
    visit_side(w, &k, -1, below);
    k.below += (w->cells[zero] >> SUM_BITS) + zeros;
    w->cells[zero] = 0;
    visit_side(w, &k, 1, above);
    if (k.crowded > MOST_CROWDED) {
        for (ptrdiff_t c = 0; c < k.crowds; c++) {
            w->cells[w->crowds[c].cell] = 0;
        }
        return (double)NAN;
    }
    return k.sum + (k.crowds > 0 ? spread_crowds(w, k.crowds, P, Q, p, q, m, sign) : 0.0);
}

void
sl_spread_free(sl_spread *all)
{
    if (all != NULL) { /* the first one holds the memory of all */
        sl_free(all->crowds);
        sl_free(all->cells);
        sl_free(all->starts);
        sl_free(all->slot);
        sl_free(all->v);
        sl_free(all);
    }
}

sl_status
sl_spread_new(ptrdiff_t n, int threads, sl_spread **out)
{
    const ptrdiff_t starts = MAX_DEPTH * (MAX_BUCKETS + 1), ints = starts + n;
    sl_spread *all = sl_alloc(threads, sizeof *all);

    *out = NULL;
    if (all == NULL) {
        return SL_ERR_NOMEM;
    }
    *all = (sl_spread){
        .v = sl_alloc(4 * n * threads, sizeof *all->v),
        .slot = sl_alloc(2 * n * threads, sizeof *all->slot),
        .starts = sl_alloc(ints * threads, sizeof *all->starts),
        .cells = sl_alloc(CELLS * (ptrdiff_t)threads, sizeof *all->cells),
        .crowds = sl_alloc((CELLS + 1) * (ptrdiff_t)threads, sizeof *all->crowds),
    };
    if (all->v == NULL || all->slot == NULL || all->starts == NULL || all->cells == NULL || all->crowds == NULL) {
        sl_spread_free(all);
        return SL_ERR_NOMEM;
    }
    memset(all->cells, 0, (size_t)(CELLS * (ptrdiff_t)threads) * sizeof *all->cells);
    for (ptrdiff_t t = threads - 1; t >= 0; t--) {
        all[t] = (sl_spread){
            .v = all->v + 4 * n * t,
            .spare = all->v + 4 * n * t + 2 * n,
            .slot = all->slot + 2 * n * t,
            .starts = all->starts + ints * t,
            .cell = all->starts + ints * t + starts,
            .cells = all->cells + CELLS * t,
            .crowds = all->crowds + (CELLS + 1) * t,
        };
    }
    *out = all;
    return SL_OK;
}
