/* Polysemanticity: k-means in Gram form.  Contract: sl_scores.h. */
#include <math.h>
#include <string.h>

#include "sl_lens_private.h"

/* What one thread needs; ld = m rounded up to SL_GRAM_STEP. */
typedef struct {
    const float **rows;     /* m */
    ptrdiff_t *places;      /* m */
    double *squares;        /* m */
    double *gram, *centred; /* ld x ld */
    double *pack;           /* SL_GRAM_DEPTH x ld */
    double *sums;           /* h x ld */
    double *nearest, *mean; /* ld */
    double *within, *size;  /* h: B_cc, members */
    int32_t *labels, *next, *best, *chosen;
} poly_work;

enum { POINTERS = 2, VECTORS = 3, INTEGERS = 4 };

static ptrdiff_t
row_distance(ptrdiff_t m)
{
    return (m + SL_GRAM_STEP - 1) / SL_GRAM_STEP * SL_GRAM_STEP;
}

/* Doubles per thread (a pointer, a place and four labels fit into one each), or -1. */
static ptrdiff_t
work_size(ptrdiff_t m, ptrdiff_t h)
{
    const ptrdiff_t ld = row_distance(m), wide = h > ld ? row_distance(h) : ld;
    ptrdiff_t square, strip;

    if (sl_mul(2 * ld + SL_GRAM_DEPTH + POINTERS + VECTORS + INTEGERS, ld, &square) < 0 || sl_mul(h, ld, &strip) < 0 ||
        __builtin_add_overflow(square, strip + 3 * wide, &square)) {
        return -1;
    }
    return square;
}

static poly_work
work_of_thread(double *memory, ptrdiff_t size, ptrdiff_t m, ptrdiff_t h)
{
    const ptrdiff_t ld = row_distance(m), wide = h > ld ? row_distance(h) : ld;
    double *p = memory + sl_thread_id() * size;
    poly_work w;

    w.rows = (const float **)(void *)p;
    w.places = (ptrdiff_t *)(void *)(p + ld);
    w.squares = p + 2 * ld;
    w.nearest = p + 3 * ld;
    w.mean = p + 4 * ld;
    w.gram = p + (POINTERS + VECTORS) * ld;
    w.centred = w.gram + ld * ld;
    w.pack = w.centred + ld * ld;
    w.sums = w.pack + SL_GRAM_DEPTH * ld;
    w.within = w.sums + h * ld;
    w.size = w.within + wide;
    w.labels = (int32_t *)(void *)(w.size + wide);
    w.next = w.labels + ld;
    w.best = w.next + ld;
    w.chosen = w.best + ld;
    return w;
}

/* Number in [0, 1): a function of its place in the sequence only (finaliser of splitmix64, Steele et al. 2014). */
static double
uniform(uint64_t seed, int restart, int draw)
{
    return (double)(sl_mix64(sl_mix64(sl_mix64(0, seed), (uint64_t)restart), (uint64_t)draw) >> 11) * 0x1p-53;
}

/* The Gram matrix of the rows less their mean, and its trace. */
static double
centre(const double *g, ptrdiff_t n, ptrdiff_t ld, double *mean, double *c)
{
    double total = 0.0, scatter = 0.0;

    for (ptrdiff_t i = 0; i < ld; i++) {
        mean[i] = 0.0;
        for (ptrdiff_t j = 0; j < n; j++) {
            mean[i] += g[j * ld + i];
        }
        mean[i] /= (double)n;
        total += i < n ? mean[i] : 0.0;
    }
    total /= (double)n;
    for (ptrdiff_t i = 0; i < n; i++) {
        for (ptrdiff_t j = 0; j < ld; j++) {
            c[i * ld + j] = j < n ? (g[i * ld + j] - (mean[i] + mean[j])) + total : 0.0;
        }
        scatter += c[i * ld + i];
    }
    return scatter;
}

static double
squared_distance(const double *c, ptrdiff_t ld, ptrdiff_t i, ptrdiff_t j)
{
    const double distance = c[i * ld + i] + c[j * ld + j] - 2.0 * c[i * ld + j];

    return distance > 0.0 ? distance : 0.0;
}

/* Greedy k-means++; fewer than h centres if there are fewer different rows.  labels[i] = nearest centre, the first on ties. */
static void
start(const poly_work *w, ptrdiff_t n, ptrdiff_t ld, const sl_poly_options *o, double scatter, int restart)
{
    const int trials = 2 + (int)log((double)o->n_clusters);
    ptrdiff_t at = (ptrdiff_t)(uniform(o->seed, restart, 0) * (double)n);
    int draw = 1;

    for (ptrdiff_t i = 0; i < n; i++) {
        w->nearest[i] = (double)INFINITY;
        w->labels[i] = 0;
    }
    for (int32_t centre_no = 0;; centre_no++) {
        double total = 0.0, best_total = (double)INFINITY;
        for (ptrdiff_t i = 0; i < n; i++) {
            const double distance = squared_distance(w->centred, ld, i, at);
            if (distance < w->nearest[i]) {
                w->nearest[i] = distance;
                w->labels[i] = centre_no;
            }
            total += w->nearest[i];
        }
        if (centre_no + 1 == o->n_clusters || !(total > 0.0)) {
            return;
        }
        for (int trial = 0; trial < trials; trial++) {
            const double target = uniform(o->seed, restart, draw++) * total;
            double sum = 0.0, reached = 0.0;
            ptrdiff_t candidate = 0;
            while (candidate < n - 1 && (sum += w->nearest[candidate]) <= target) {
                candidate++;
            }
            for (ptrdiff_t i = 0; i < n; i++) {
                const double distance = squared_distance(w->centred, ld, i, candidate);
                reached += distance < w->nearest[i] ? distance : w->nearest[i];
            }
            if (reached < best_total - 1e-12 * scatter) { /* two rows that are each other's nearest tie */
                best_total = reached;
                at = candidate;
            }
        }
    }
}

/* sums, within = B_cc and size of the groups of `labels` in the Gram matrix g. */
static void
group(const poly_work *w, const double *g, ptrdiff_t n, ptrdiff_t ld, const int32_t *labels, int h,
      const struct sl_lens_loops *loops)
{
    loops->group_sums(g, n, ld, labels, h, w->sums);
    for (int c = 0; c < h; c++) {
        w->within[c] = w->size[c] = 0.0;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        w->within[labels[i]] += w->sums[labels[i] * ld + i];
        w->size[labels[i]] += 1.0;
    }
}

static double
inertia_of(const poly_work *w, double scatter, int h)
{
    for (int c = 0; c < h; c++) {
        scatter -= w->size[c] > 0.0 ? w->within[c] / w->size[c] : 0.0;
    }
    return scatter > 0.0 ? scatter : 0.0;
}

/* An empty cluster takes the row farthest from its own centre among clusters of two or more; nearest[i] = that squared distance. */
static void
fill_empty(const poly_work *w, ptrdiff_t n, int h, double scatter, int32_t *labels)
{
    for (int c = 0; c < h; c++) {
        ptrdiff_t members = 0, farthest = -1;
        double most = 1e-12 * scatter;
        for (ptrdiff_t i = 0; i < n; i++) {
            members += labels[i] == c;
        }
        for (ptrdiff_t i = 0; members == 0 && i < n; i++) {
            ptrdiff_t mates = 0;
            for (ptrdiff_t j = 0; j < n; j++) {
                mates += labels[j] == labels[i];
            }
            if (mates > 1 && w->nearest[i] > most) {
                most = w->nearest[i];
                farthest = i;
            }
        }
        if (farthest >= 0) {
            labels[farthest] = c;
        }
    }
}

/* next[i] = nearest centre of the groups in sums, within, size; returns whether any differs from labels[i]. */
static int
assign(const poly_work *w, ptrdiff_t n, ptrdiff_t ld, int h, double scatter)
{
    int moved = 0, empty = 0;

    for (ptrdiff_t i = 0; i < n; i++) {
        w->nearest[i] = (double)INFINITY;
    }
    for (int c = 0; c < h; c++) {
        if (!(w->size[c] > 0.0)) {
            continue;
        }
        const double offset = w->within[c] / (w->size[c] * w->size[c]), factor = 2.0 / w->size[c];
        const double *sums = w->sums + c * ld;
        for (ptrdiff_t i = 0; i < n; i++) {
            const double distance = offset - factor * sums[i];
            const int closer = distance < w->nearest[i];
            w->next[i] = closer ? c : w->next[i];
            w->nearest[i] = closer ? distance : w->nearest[i];
        }
    }
    for (int c = 0; c < h; c++) {
        ptrdiff_t members = 0;
        for (ptrdiff_t i = 0; i < n; i++) {
            members += w->next[i] == c;
        }
        empty |= members == 0;
    }
    if (empty) {
        for (ptrdiff_t i = 0; i < n; i++) {
            w->nearest[i] += w->centred[i * ld + i];
        }
        fill_empty(w, n, h, scatter, w->next);
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        moved |= w->next[i] != w->labels[i];
    }
    return moved;
}

/* best = labels of the best restart. */
static void
cluster(const poly_work *w, ptrdiff_t n, ptrdiff_t ld, const sl_poly_options *o, double scatter,
        const struct sl_lens_loops *loops)
{
    const size_t bytes = (size_t)n * sizeof *w->labels;
    double best = (double)INFINITY;

    for (int restart = 0; restart < o->n_init; restart++) {
        start(w, n, ld, o, scatter, restart);
        for (int step = 0;; step++) {
            group(w, w->centred, n, ld, w->labels, o->n_clusters, loops);
            if (step == o->max_iter || !assign(w, n, ld, o->n_clusters, scatter)) {
                break;
            }
            memcpy(w->labels, w->next, bytes);
        }
        const double inertia = inertia_of(w, scatter, o->n_clusters);
        if (inertia < best - 1e-12 * scatter) {
            best = inertia;
            memcpy(w->best, w->labels, bytes);
        }
    }
}

/* A mean of rows whose squared length is below this share of theirs has no direction: what is left is rounding. */
static int
no_direction(double square_of_sum, double members, double squares)
{
    return !(square_of_sum > 1e-13 * members * squares);
}

static double
clip(double cosine)
{
    return cosine > 1.0 ? 1.0 : (cosine < -1.0 ? -1.0 : cosine);
}

/* 1 - mean cosine of the first ten rows to the mean of all; w holds the groups of one cluster over everything. */
static double
spread(const poly_work *w, ptrdiff_t n, ptrdiff_t ld, const struct sl_lens_loops *loops)
{
    const ptrdiff_t shown = n < 10 ? n : 10;
    double total = 0.0, squares = 0.0;

    memset(w->next, 0, (size_t)n * sizeof *w->next);
    group(w, w->gram, n, ld, w->next, 1, loops);
    for (ptrdiff_t i = 0; i < n; i++) {
        squares += w->gram[i * ld + i];
    }
    if (no_direction(w->within[0], (double)n, squares)) {
        return (double)NAN;
    }
    for (ptrdiff_t i = 0; i < shown; i++) {
        total += clip(w->sums[i] / sqrt(w->within[0] * w->gram[i * ld + i]));
    }
    return 1.0 - total / (double)shown;
}

static double
score_of(const poly_work *w, ptrdiff_t n, ptrdiff_t ld, int h, const struct sl_lens_loops *loops)
{
    double total = 0.0;
    int pairs = 0, small = 0;

    group(w, w->gram, n, ld, w->best, h, loops);
    for (int c = 0; c < h; c++) {
        small |= w->size[c] < 2.0;
    }
    if (small) {
        return spread(w, n, ld, loops);
    }
    for (int c = 0; c < h; c++) {
        double squares = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) {
            squares += w->best[i] == c ? w->gram[i * ld + i] : 0.0;
        }
        if (no_direction(w->within[c], w->size[c], squares)) {
            return (double)NAN;
        }
    }
    for (int a = 0; a < h; a++) {
        for (int b = 0; b < a; b++, pairs++) {
            double between = 0.0;
            for (ptrdiff_t i = 0; i < n; i++) {
                between += w->best[i] == a ? w->sums[b * ld + i] : 0.0;
            }
            total += clip(between / sqrt(w->within[a] * w->within[b]));
        }
    }
    return 1.0 - total / (double)pairs;
}

static int
all_equal(const float *const *rows, ptrdiff_t n, ptrdiff_t d)
{
    for (ptrdiff_t i = 1; i < n; i++) {
        for (ptrdiff_t j = 0; j < d; j++) {
            if (rows[i][j] < rows[0][j] || rows[i][j] > rows[0][j]) {
                return 0;
            }
        }
    }
    return 1;
}

/* Keeps the usable rows that have a label. */
static ptrdiff_t
keep_labelled(const poly_work *w, ptrdiff_t n, const int32_t *labels)
{
    ptrdiff_t kept = 0;

    for (ptrdiff_t i = 0; i < n; i++) {
        if (labels[w->places[i]] >= 0) {
            w->rows[kept] = w->rows[i];
            w->places[kept] = w->places[i];
            w->best[kept] = labels[w->places[i]];
            kept++;
        }
    }
    return kept;
}

static void
component(const sl_examples *x, ptrdiff_t k, const int32_t *labels_in, const sl_poly_options *o, const poly_work *w,
          const struct sl_lens_loops *loops, double *score, int32_t *labels, double *inertia)
{
    const ptrdiff_t ld = row_distance(x->m);
    ptrdiff_t n = sl_usable_rows(x, k, loops, w->rows, w->places, w->squares);

    for (ptrdiff_t i = 0; i < x->m; i++) {
        labels[i] = -1;
    }
    *score = *inertia = (double)NAN;
    if (labels_in != NULL) {
        n = keep_labelled(w, n, labels_in);
    }
    if (n < o->n_clusters) {
        return;
    }
    const int equal = all_equal(w->rows, n, x->d);
    loops->gram(w->rows, n, x->d, w->gram, ld, w->pack);
    const double scatter = centre(w->gram, n, ld, w->mean, w->centred);
    if (labels_in == NULL && equal) {
        memset(w->best, 0, (size_t)n * sizeof *w->best);
    } else if (labels_in == NULL && o->exact) {
        const uint32_t mask = loops->best_split(w->centred, n, ld, scatter, w->sums);
        for (ptrdiff_t i = 0; i < n; i++) {
            w->best[i] = (int32_t)(mask >> i & 1U);
        }
    } else if (labels_in == NULL) {
        cluster(w, n, ld, o, scatter, loops);
    }
    group(w, w->centred, n, ld, w->best, o->n_clusters, loops);
    *inertia = equal ? 0.0 : inertia_of(w, scatter, o->n_clusters);
    *score = equal ? 0.0 : score_of(w, n, ld, o->n_clusters, loops);
    for (ptrdiff_t i = 0; i < n; i++) {
        labels[w->places[i]] = w->best[i];
    }
}

static int
arguments_are_usable(const sl_examples *x, const int32_t *labels_in, const sl_poly_options *o, int n_threads)
{
    if (n_threads < 1 || o->n_clusters < 2 || o->n_init < 1 || o->max_iter < 1 || (o->exact && o->n_clusters != 2)) {
        return 0;
    }
    for (ptrdiff_t k = 0; o->exact && k < x->K; k++) {
        if ((x->counts != NULL ? x->counts[k] : x->m) > SL_EXACT_MAX) {
            return 0;
        }
    }
    for (ptrdiff_t i = 0; labels_in != NULL && i < x->K * x->m; i++) {
        if (labels_in[i] >= o->n_clusters) {
            return 0;
        }
    }
    return 1;
}

sl_status
sl_polysemanticity_f32(const sl_examples *x, const int32_t *labels_in, const sl_poly_options *options, double *score,
                       int32_t *labels, double *inertia, int n_threads)
{
    const struct sl_lens_loops *loops = sl_tier_get()->lens;
    const int threads = sl_threads(n_threads);
    const sl_status status = sl_examples_check(x);
    ptrdiff_t size, total;
    double *memory = NULL;

    if (status != SL_OK) {
        return status;
    }
    if (!arguments_are_usable(x, labels_in, options, n_threads)) {
        return SL_ERR_ARG;
    }
    if (options->n_clusters > x->m) { /* nothing to cluster, and no need for room */
        for (ptrdiff_t k = 0; k < x->K; k++) {
            score[k] = inertia[k] = (double)NAN;
        }
        for (ptrdiff_t i = 0; i < x->K * x->m; i++) {
            labels[i] = -1;
        }
        return SL_OK;
    }
    size = work_size(x->m, options->n_clusters);
    if (size < 0 || sl_mul(size, threads, &total) < 0) {
        return SL_ERR_OVERFLOW;
    }
    memory = sl_alloc(total, sizeof *memory);
    if (memory == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 4)
    for (ptrdiff_t k = 0; k < x->K; k++) {
        const poly_work w = work_of_thread(memory, size, x->m, options->n_clusters);
        component(x, k, labels_in != NULL ? labels_in + k * x->m : NULL, options, &w, loops, score + k,
                  labels + k * x->m, inertia + k);
    }
    sl_free(memory);
    return SL_OK;
}
