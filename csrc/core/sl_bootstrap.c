/* Bootstrap of a component's scores in Gram form.  Contract: sl_bootstrap.h. */
#include "sl/sl_bootstrap.h"

#include <math.h>
#include <string.h>

#include "sl_lens_private.h"

/* What one thread needs.  ld = m rounded up to SL_GRAM_STEP, wide = (m + P) rounded up. */
typedef struct {
    const float **rows; /* m + P: usable examples, then usable targets */
    ptrdiff_t *places, *target;
    double *squares, *scale;       /* m + P: |v_i|^2, b_i */
    double *all, *pack;            /* wide x wide products of the rows; SL_GRAM_DEPTH x wide */
    double *gram, *unit, *vector;  /* ld x ld: G, U, b_i b_j G_ij */
    double *project;               /* m x span: b_i <v_i, t_p> / |t_p|, span = P rounded up, 0 from P on */
    double *numbers;               /* V x ld */
    double *weight;                /* ld: of the drawn examples, in order; 2 ld: group by group */
    double *sum;                   /* 2 ld: of two groups; span: of the projections */
    double *score, *replicate;     /* S of one resample; S x R */
    int32_t *drawn;                /* as weight */
    int32_t *label, *next, *count; /* ld */
    int32_t *found;                /* S: how many replicates */
    ptrdiff_t n, used, targets;    /* usable examples, different ones drawn, usable targets */
    ptrdiff_t ld, wide, span;
} boot;

typedef struct {
    const sl_examples *x;
    const sl_bootstrap_scores *s;
    const sl_bootstrap_options *o;
    const struct sl_lens_loops *loops;
    ptrdiff_t scores;
} task;

static ptrdiff_t
row_distance(ptrdiff_t m)
{
    return (m + SL_GRAM_STEP - 1) / SL_GRAM_STEP * SL_GRAM_STEP;
}

/* Takes n doubles off the memory at *at; with base NULL only counts. */
static double *
take(double *base, ptrdiff_t *at, ptrdiff_t n)
{
    double *p = base != NULL ? base + *at : NULL;

    *at += (n + 7) & ~(ptrdiff_t)7;
    return p;
}

/* Carves a thread's memory; returns the doubles it takes.  The sizes were checked by sizes_fit. */
static ptrdiff_t
carve(const task *t, double *base, boot *w)
{
    const ptrdiff_t m = t->x->m, P = t->s->P, ld = row_distance(m), wide = row_distance(m + P);
    ptrdiff_t at = 0;

    w->ld = ld;
    w->wide = wide;
    w->rows = (const float **)(void *)take(base, &at, wide);
    w->places = (ptrdiff_t *)(void *)take(base, &at, wide);
    w->target = (ptrdiff_t *)(void *)take(base, &at, wide);
    w->squares = take(base, &at, wide);
    w->scale = take(base, &at, wide);
    w->all = take(base, &at, wide * wide);
    w->pack = take(base, &at, SL_GRAM_DEPTH * wide);
    w->gram = take(base, &at, ld * ld);
    w->unit = take(base, &at, ld * ld);
    w->vector = take(base, &at, ld * ld);
    w->span = row_distance(P);
    w->project = take(base, &at, m * w->span);
    w->numbers = take(base, &at, t->s->V * ld);
    w->weight = take(base, &at, 3 * ld);
    w->sum = take(base, &at, 2 * ld + w->span);
    w->score = take(base, &at, t->scores);
    w->replicate = take(base, &at, t->scores * t->o->resamples);
    w->drawn = (int32_t *)(void *)take(base, &at, 3 * ld);
    w->label = (int32_t *)(void *)take(base, &at, ld);
    w->next = (int32_t *)(void *)take(base, &at, ld);
    w->count = (int32_t *)(void *)take(base, &at, ld);
    w->found = (int32_t *)(void *)take(base, &at, t->scores);
    return at;
}

static int
sizes_fit(const task *t)
{
    const ptrdiff_t most = PTRDIFF_MAX / 64;
    ptrdiff_t edge, square, strip, places;

    if (__builtin_add_overflow(t->x->m, t->s->P, &edge) || edge > INT32_MAX / 4 ||
        sl_mul(edge + 64, edge + 64, &square) < 0 || sl_mul(t->s->P + t->s->V + 2, t->o->resamples, &strip) < 0 ||
        sl_mul(t->s->V + t->s->P, edge + 64, &places) < 0 || sl_mul(t->x->K, t->s->P + t->s->V + 2, &edge) < 0 ||
        sl_mul(edge, t->x->m + SL_BOOTSTRAP_FIELDS, &edge) < 0) {
        return 0;
    }
    return square < most / 8 && strip < most && places < most && edge < most;
}

/* The usable examples and targets of component k, all their products, and what is made of them. */
static void
load(const task *t, ptrdiff_t k, boot *w)
{
    const ptrdiff_t d = t->x->d, P = t->s->P, m = t->x->m;

    w->n = sl_usable_rows(t->x, k, t->loops, w->rows, w->places, w->squares);
    w->targets = 0;
    for (ptrdiff_t p = 0; p < P; p++) {
        const int64_t id = t->s->target_ids[k * P + p];
        const float *row = id < 0 ? NULL : t->s->targets + id * d;
        const double square = row == NULL ? 0.0 : t->loops->square(row, d);
        w->target[p] = -1;
        if (square > 0.0 && square < (double)INFINITY) {
            w->target[p] = w->n + w->targets;
            w->rows[w->n + w->targets++] = row;
        }
    }
    t->loops->gram(w->rows, w->n + w->targets, d, w->all, w->wide, w->pack);
    for (ptrdiff_t i = 0; i < w->n; i++) {
        const double weight = t->s->weights != NULL ? (double)t->s->weights[k * m + w->places[i]] : 1.0;
        w->scale[i] = t->s->normalize ? weight / sqrt(w->squares[i]) : weight;
        w->label[i] = t->s->clusters != NULL && t->s->clusters[k * m + w->places[i]] > 0;
        for (ptrdiff_t v = 0; v < t->s->V; v++) {
            w->numbers[v * w->ld + i] = t->s->values[(k * t->s->V + v) * m + w->places[i]];
        }
    }
    for (ptrdiff_t i = 0; i < w->n; i++) {
        for (ptrdiff_t j = 0; j < w->ld; j++) {
            const double g = j < w->n ? w->all[i * w->wide + j] : 0.0;
            w->gram[i * w->ld + j] = g;
            w->unit[i * w->ld + j] = j < w->n ? g / (sqrt(w->squares[i]) * sqrt(w->squares[j])) : 0.0;
            w->vector[i * w->ld + j] = j < w->n ? w->scale[i] * w->scale[j] * g : 0.0;
        }
        for (ptrdiff_t p = 0; p < w->span; p++) {
            const ptrdiff_t at = p < P ? w->target[p] : -1;
            const double blank = p < P ? (double)NAN : 0.0;
            w->project[i * w->span + p] =
                at < 0 ? blank : w->scale[i] * w->all[i * w->wide + at] / sqrt(w->all[at * w->wide + at]);
        }
    }
}

/* Counts of resample r, or 1 everywhere for r = -1, as the list of drawn examples and their weights. */
static void
draw(const sl_bootstrap_options *o, int64_t k, int64_t r, boot *w)
{
    const uint64_t place = sl_mix64(sl_mix64(sl_mix64(0, o->seed), (uint64_t)k), (uint64_t)r), n = (uint64_t)w->n;

    for (ptrdiff_t i = 0; i < w->n; i++) {
        w->count[i] = r < 0;
    }
    for (uint64_t j = 0; r >= 0 && j < n; j += 2) { /* one hash gives two draws of 32 bits */
        const uint64_t hash = sl_mix64(place, j);
        w->count[(hash & UINT32_MAX) * n >> 32]++;
        if (j + 1 < n) {
            w->count[(hash >> 32) * n >> 32]++;
        }
    }
    w->used = 0;
    for (ptrdiff_t i = 0; i < w->n; i++) {
        w->drawn[w->used] = (int32_t)i;
        w->weight[w->used] = (double)w->count[i];
        w->used += w->count[i] > 0;
    }
}

/* w' g w over the drawn examples. */
static double
quadratic(const task *t, const boot *w, const double *g)
{
    double total = 0.0;

    t->loops->add_rows(g, w->drawn, w->weight, w->used, w->ld, w->sum);
    for (ptrdiff_t i = 0; i < w->used; i++) {
        total += w->weight[i] * w->sum[w->drawn[i]];
    }
    return total;
}

static double
clip(double cosine)
{
    return cosine > 1.0 ? 1.0 : (cosine < -1.0 ? -1.0 : cosine);
}

/* A sum of rows whose squared length is below this share of theirs has no direction: what is left is rounding. */
static int
no_direction(double square_of_sum, double members, double squares)
{
    return !(square_of_sum > 1e-13 * members * squares);
}

typedef struct {
    double size[2];    /* draws */
    double b[3];       /* B_00, B_01, B_11 */
    double squares[2]; /* sum of w_i G_ii */
} pair;

/* Two groups of the drawn examples; their sums in G lie at w->sum.  Both lists are written without a branch on the label. */
static pair
groups(const task *t, const boot *w)
{
    double *weight = w->weight + w->ld;
    int32_t *list = w->drawn + w->ld;
    ptrdiff_t n = 0, begin[3] = {0};
    pair g = {0};

    for (int c = 0; c < 2; c++) {
        for (ptrdiff_t i = 0; i < w->used; i++) {
            list[n] = w->drawn[i];
            weight[n] = w->weight[i];
            n += w->next[w->drawn[i]] == c;
        }
        begin[c + 1] = n;
        t->loops->add_rows(w->gram, list + begin[c], weight + begin[c], n - begin[c], w->ld, w->sum + c * w->ld);
        for (ptrdiff_t i = begin[c]; i < n; i++) {
            g.size[c] += weight[i];
            g.squares[c] += weight[i] * w->squares[list[i]];
        }
    }
    for (ptrdiff_t i = 0; i < begin[1]; i++) {
        g.b[0] += weight[i] * w->sum[list[i]];
        g.b[1] += weight[i] * w->sum[w->ld + list[i]];
    }
    for (ptrdiff_t i = begin[1]; i < n; i++) {
        g.b[2] += weight[i] * w->sum[w->ld + list[i]];
    }
    return g;
}

/* Puts every drawn example to the nearer centre, on a tie where it is; returns whether any moved. */
static int
assign(const boot *w, const pair *g)
{
    const double offset = g->b[0] / (g->size[0] * g->size[0]) - g->b[2] / (g->size[1] * g->size[1]);
    const double left = 2.0 / g->size[0], right = 2.0 / g->size[1];
    int moved = 0;

    for (ptrdiff_t i = 0; i < w->used; i++) {
        const ptrdiff_t at = w->drawn[i];
        const double excess = offset - left * w->sum[at] + right * w->sum[w->ld + at];
        const int32_t c = (excess > 0.0) | ((w->next[at] == 1) & !(excess < 0.0));
        moved |= c ^ w->next[at];
        w->next[at] = c;
    }
    return moved;
}

/* One minus the mean cosine of the first ten examples to the mean of all; the groups in raw products are at w->sum. */
static double
spread(const boot *w, const pair *g, double length)
{
    double total = 0.0, shown = 0.0;

    if (no_direction(length, (double)w->n, g->squares[0] + g->squares[1])) {
        return (double)NAN;
    }
    for (ptrdiff_t i = 0; i < w->used && w->drawn[i] < 10; i++) {
        const ptrdiff_t at = w->drawn[i];
        total += w->weight[i] * clip((w->sum[at] + w->sum[w->ld + at]) / sqrt(length * w->squares[at]));
        shown += w->weight[i];
    }
    return shown > 0.0 ? 1.0 - total / shown : (double)NAN;
}

/* *length = w'Gw. */
static double
polysemanticity(const task *t, const boot *w, double *length)
{
    pair g;

    memcpy(w->next, w->label, (size_t)w->n * sizeof *w->label);
    g = groups(t, w);
    for (int step = 0; step < t->o->steps && g.size[0] > 0.0 && g.size[1] > 0.0 && assign(w, &g); step++) {
        g = groups(t, w);
    }
    *length = g.b[0] + 2.0 * g.b[1] + g.b[2];
    if (g.size[0] < 2.0 || g.size[1] < 2.0) {
        return spread(w, &g, *length);
    }
    if (no_direction(g.b[0], g.size[0], g.squares[0]) || no_direction(g.b[2], g.size[1], g.squares[1])) {
        return (double)NAN;
    }
    return 1.0 - clip(g.b[1] / sqrt(g.b[0] * g.b[2]));
}

/* score[0 .. P - 1] = cosines of a vector with this square of its length; returns the place of the highest, or -1. */
static ptrdiff_t
cosines(const task *t, const boot *w, double length, double *score)
{
    double squares = 0.0, most = -(double)INFINITY, *sum = w->sum + 2 * w->ld;
    ptrdiff_t best = -1;

    for (ptrdiff_t i = 0; i < w->used; i++) {
        squares += w->weight[i] * w->vector[w->drawn[i] * (w->ld + 1)];
    }
    const double scale = no_direction(length, (double)w->n, squares) ? (double)NAN : 1.0 / sqrt(length);
    t->loops->add_rows(w->project, w->drawn, w->weight, w->used, w->span, sum);
    for (ptrdiff_t p = 0; p < t->s->P; p++) {
        score[p] = clip(sum[p] * scale);
        if (score[p] > most) {
            most = score[p];
            best = p;
        }
    }
    return best;
}

static double
mean_number(const boot *w, const double *numbers)
{
    double total = 0.0, weights = 0.0;

    for (ptrdiff_t i = 0; i < w->used; i++) {
        const double x = numbers[w->drawn[i]];
        if (isfinite(x)) {
            total += w->weight[i] * x;
            weights += w->weight[i];
        }
    }
    return weights > 0.0 ? total / weights : (double)NAN;
}

/* All scores of the drawn examples; returns the best target. */
static ptrdiff_t
evaluate(const task *t, const boot *w, double *score)
{
    const double unit = quadratic(t, w, w->unit);
    const int raw = t->s->weights == NULL && !t->s->normalize;
    double total = (double)w->n, squares = 0.0, length = unit;
    ptrdiff_t best = -1;

    for (ptrdiff_t i = 0; i < w->used; i++) {
        squares += w->weight[i] * w->weight[i];
    }
    const double pairs = total * total - squares;
    score[0] = pairs > 1e-12 * squares ? clip((unit - squares) / pairs) : (double)NAN;
    score[1] = (double)NAN;
    if (t->s->clusters != NULL && w->n > 1) {
        score[1] = polysemanticity(t, w, &length); /* which leaves |sum w_i v_i|^2 behind */
    } else if (raw) {
        length = quadratic(t, w, w->gram);
    }
    if (t->s->P > 0) {
        length = raw ? length : (t->s->weights == NULL ? unit : quadratic(t, w, w->vector));
        best = cosines(t, w, length, score + 2);
    }
    for (ptrdiff_t v = 0; v < t->s->V; v++) {
        score[2 + t->s->P + v] = mean_number(w, w->numbers + v * w->ld);
    }
    return best;
}

/* The value of rank k, from 0, of a[0 .. n - 1]: afterwards nothing before it is above it and nothing behind it below. */
static double
rank_value(double *a, ptrdiff_t n, ptrdiff_t k)
{
    ptrdiff_t low = 0, high = n - 1;

    while (low < high) {
        const double pivot = a[low + (high - low) / 2];
        ptrdiff_t i = low, j = high;
        while (i <= j) {
            while (a[i] < pivot) {
                i++;
            }
            while (a[j] > pivot) {
                j--;
            }
            if (i <= j) {
                const double held = a[i];
                a[i++] = a[j];
                a[j--] = held;
            }
        }
        if (k <= j) {
            high = j;
        } else if (k >= i) {
            low = i;
        } else {
            break;
        }
    }
    return a[k];
}

/* Linear between order statistics: rank q (n - 1). */
static double
quantile(double *a, ptrdiff_t n, double q)
{
    const double rank = q * (double)(n - 1);
    const ptrdiff_t k = (ptrdiff_t)rank;
    const double low = rank_value(a, n, k), part = rank - (double)k;

    return part > 0.0 && k + 1 < n ? low + part * (rank_value(a, n, k + 1) - low) : low;
}

/* The fields of one score from its n replicates; out[0] is its value. */
static void
summarise(const task *t, const boot *w, double *a, ptrdiff_t n, ptrdiff_t score, double *out)
{
    const int cosine = score >= 2 && score < 2 + t->s->P, bounded = score < 2 || cosine;
    const double least = score == 1 ? 0.0 : -1.0, most = score == 1 ? 2.0 : 1.0;
    double mean = 0.0, squares = 0.0;

    out[1] = out[2] = out[3] = out[4] = (double)NAN;
    if (isnan(out[0]) || w->n < SL_BOOTSTRAP_LEAST || 2 * n < t->o->resamples) {
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        mean += a[i];
    }
    mean /= (double)n;
    for (ptrdiff_t i = 0; i < n; i++) {
        squares += (a[i] - mean) * (a[i] - mean);
    }
    out[3] = mean;
    out[4] = n > 1 ? sqrt(squares / (double)(n - 1)) : 0.0;
    out[1] = out[0] + (quantile(a, n, 0.5 - 0.5 * t->o->level) - mean);
    out[2] = out[0] + (quantile(a, n, 0.5 + 0.5 * t->o->level) - mean);
    if (bounded) {
        out[1] = out[1] < least ? least : out[1];
        out[2] = out[2] > most ? most : out[2];
    }
}

static void
component(const task *t, ptrdiff_t k, boot *w, double *out, double *wins)
{
    const ptrdiff_t S = t->scores, R = t->o->resamples, P = t->s->P;

    load(t, k, w);
    draw(t->o, t->o->first + k, -1, w);
    evaluate(t, w, w->score);
    for (ptrdiff_t s = 0; s < S; s++) {
        out[s * SL_BOOTSTRAP_FIELDS] = w->score[s];
        w->found[s] = 0;
    }
    for (ptrdiff_t p = 0; p < P; p++) {
        wins[p] = w->n < SL_BOOTSTRAP_LEAST || isnan(out[(2 + p) * SL_BOOTSTRAP_FIELDS]) ? (double)NAN : 0.0;
    }
    for (int64_t r = 0; w->n >= SL_BOOTSTRAP_LEAST && r < R; r++) {
        draw(t->o, t->o->first + k, r, w);
        const ptrdiff_t best = evaluate(t, w, w->score);
        for (ptrdiff_t s = 0; s < S; s++) {
            if (!isnan(w->score[s])) {
                w->replicate[s * R + w->found[s]++] = w->score[s];
            }
        }
        if (best >= 0) {
            wins[best] += 1.0;
        }
    }
    for (ptrdiff_t p = 0; p < P; p++) {
        wins[p] /= (double)R;
    }
    for (ptrdiff_t s = 0; s < S; s++) {
        summarise(t, w, w->replicate + s * R, w->found[s], s, out + s * SL_BOOTSTRAP_FIELDS);
    }
}

static int
arguments_are_usable(const task *t, int n_threads)
{
    const sl_bootstrap_scores *s = t->s;
    const ptrdiff_t places = t->x->K * t->x->m;

    if (n_threads < 1 || t->o->resamples < 2 || t->o->steps < 0 || !(t->o->level > 0.0 && t->o->level < 1.0) ||
        s->P < 0 || s->V < 0 || s->T < 0) {
        return 0;
    }
    for (ptrdiff_t i = 0; s->weights != NULL && i < places; i++) {
        if (!(s->weights[i] >= 0.0F && s->weights[i] < INFINITY)) {
            return 0;
        }
    }
    for (ptrdiff_t i = 0; s->clusters != NULL && i < places; i++) {
        if (s->clusters[i] > 1) {
            return 0;
        }
    }
    for (ptrdiff_t i = 0; i < t->x->K * s->P; i++) {
        if (s->target_ids[i] < -1 || s->target_ids[i] >= s->T) {
            return 0;
        }
    }
    return 1;
}

sl_status
sl_bootstrap_f32(const sl_examples *x, const sl_bootstrap_scores *scores, const sl_bootstrap_options *options,
                 double *out, double *wins, int n_threads)
{
    const task t = {x, scores, options, sl_tier_get()->lens, 2 + scores->P + scores->V};
    const int threads = sl_threads(n_threads);
    const sl_status status = sl_examples_check(x);
    ptrdiff_t stride, total;
    double *memory = NULL;
    boot sizes;

    if (status != SL_OK) {
        return status;
    }
    if (scores->P < 0 || scores->V < 0 || options->resamples < 2) {
        return SL_ERR_ARG;
    }
    if (!sizes_fit(&t)) {
        return SL_ERR_OVERFLOW;
    }
    if (!arguments_are_usable(&t, n_threads)) {
        return SL_ERR_ARG;
    }
    stride = carve(&t, NULL, &sizes);
    if (sl_mul(stride, threads, &total) < 0) {
        return SL_ERR_OVERFLOW;
    }
    memory = sl_alloc(total, sizeof *memory);
    if (memory == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 4)
    for (ptrdiff_t k = 0; k < x->K; k++) {
        boot w = {0};
        carve(&t, memory + sl_thread_id() * stride, &w);
        component(&t, k, &w, out + k * t.scores * SL_BOOTSTRAP_FIELDS, wins + k * scores->P);
    }
    sl_free(memory);
    return SL_OK;
}
