/* Nearest rows by inner product.  Contract: sl_measures.h.
 *
 * Each pair's product is formed once and offered to both rows.  A thread keeps lists of its own; a list holds the best of what it was offered in the order
 * (product, lower index), so that the union of all lists does not depend on who saw which pair. */
#include "sl/sl_measures.h"

#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_gram_private.h"

enum { BLOCK = SL_GRAM_BLOCK, TILE = BLOCK * BLOCK, SPARE = 6 };

struct sl_near {
    const sl_gram *g;
    ptrdiff_t k, c; /* wanted, kept */
    int threads;
    float *value;   /* (threads, n, c) descending, -inf where empty */
    int32_t *index; /* (threads, n, c), INT32_MAX where empty */
    float *limit;   /* (threads, n) smallest value of each list */
    float *tiles;   /* (threads, BLOCK, BLOCK) */
};

void
sl_near_free(sl_near *s)
{
    if (s != NULL) {
        sl_free(s->tiles);
        sl_free(s->limit);
        sl_free(s->index);
        sl_free(s->value);
        sl_free(s);
    }
}

sl_status
sl_near_new(const sl_gram *g, ptrdiff_t k, int n_threads, sl_near **out)
{
    ptrdiff_t entries;
    sl_near *s;

    *out = NULL;
    if (k < 1 || k > g->n - 1 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    s = sl_alloc(1, sizeof *s);
    if (s == NULL) {
        return SL_ERR_NOMEM;
    }
    *s = (sl_near){.g = g, .k = k, .c = sl_min(k + SPARE, g->n - 1), .threads = sl_threads(n_threads)};
    if (sl_mul(g->n * s->threads, s->c, &entries) < 0) {
        sl_free(s);
        return SL_ERR_OVERFLOW;
    }
    s->value = sl_alloc(entries, sizeof *s->value);
    s->index = sl_alloc(entries, sizeof *s->index);
    s->limit = sl_alloc(g->n * s->threads, sizeof *s->limit);
    s->tiles = sl_alloc(TILE * (ptrdiff_t)s->threads, sizeof *s->tiles);
    if (s->value == NULL || s->index == NULL || s->limit == NULL || s->tiles == NULL) {
        sl_near_free(s);
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t t = 0; t < entries; t++) {
        s->value[t] = -HUGE_VALF;
        s->index[t] = INT32_MAX;
    }
    for (ptrdiff_t t = 0; t < g->n * s->threads; t++) {
        s->limit[t] = -HUGE_VALF;
    }
    *out = s;
    return SL_OK;
}

/* Keeps (value, index) in a list of c if it is among its best; returns the list's smallest value. */
static float
offer(float *restrict v, int32_t *restrict at, ptrdiff_t c, float value, int32_t index)
{
    ptrdiff_t place = c - 1;

    if (value > v[place] || (value == v[place] && index < at[place])) {
        while (place > 0 && (value > v[place - 1] || (value == v[place - 1] && index < at[place - 1]))) {
            v[place] = v[place - 1];
            at[place] = at[place - 1];
            place--;
        }
        v[place] = value;
        at[place] = index;
    }
    return v[c - 1];
}

static void
visit(const sl_near *s, const sl_tier *tier, ptrdiff_t row, ptrdiff_t column, ptrdiff_t me)
{
    const ptrdiff_t n = s->g->n, c = s->c, first = column * BLOCK;
    float *tile = s->tiles + me * TILE, *value = s->value + me * n * c, *limit = s->limit + me * n;
    int32_t *index = s->index + me * n * c, hits[BLOCK + 1];

    sl_gram_product(tier, s->g, row, column, tile);
    for (ptrdiff_t i = row * BLOCK; i < sl_min((row + 1) * BLOCK, n); i++) {
        const float *products = tile + (i - row * BLOCK) * BLOCK;
        ptrdiff_t from, to;
        sl_gram_columns(s->g, i, column, &from, &to);
        const ptrdiff_t found = tier->gram_hits(products + from, limit[i], limit + first + from, to - from, hits);
        for (ptrdiff_t h = 0; h < found; h++) {
            const ptrdiff_t j = first + from + hits[h];
            const float product = products[from + hits[h]];
            limit[i] = offer(value + i * c, index + i * c, c, product, (int32_t)j);
            limit[j] = offer(value + j * c, index + j * c, c, product, (int32_t)i);
        }
    }
}

sl_status
sl_near_step(sl_near *s, ptrdiff_t begin, ptrdiff_t end)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t blocks = s->g->blocks;

    if (begin < 0 || end < begin || end > blocks) {
        return SL_ERR_ARG;
    }
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t t = begin * blocks; t < end * blocks; t++) {
        if (t % blocks >= t / blocks) {
            visit(s, tier, t / blocks, t % blocks, sl_thread_index());
        }
    }
    return SL_OK;
}

/* Keeps (value, index) in a list of `kept` out of at most k; returns how many it holds then. */
static ptrdiff_t
rank(double *restrict v, int32_t *restrict at, ptrdiff_t k, ptrdiff_t kept, double value, int32_t index)
{
    ptrdiff_t place = kept;

    if (kept == k) {
        place = k - 1;
        if (value < v[place] || (value == v[place] && index > at[place])) {
            return k;
        }
    }
    while (place > 0 && (value > v[place - 1] || (value == v[place - 1] && index < at[place - 1]))) {
        v[place] = v[place - 1];
        at[place] = at[place - 1];
        place--;
    }
    v[place] = value;
    at[place] = index;
    return kept < k ? kept + 1 : k;
}

/* Largest difference between a float32 product of two rows of at most these lengths and the double one. */
static double
rounding(const sl_gram *g, ptrdiff_t i)
{
    const double steps = (double)(g->kblock + g->d / g->kblock + 6);

    return 1.01 * steps * 0x1p-24 * sqrt((double)g->square[i]) * (double)g->longest + 1e-30;
}

/* Exact list of row i; 1 if all its products had to be formed. */
static int
settle(const sl_near *s, const sl_tier *tier, const double *u, ptrdiff_t i, int32_t *index, double *value)
{
    const ptrdiff_t n = s->g->n, d = s->g->d, c = s->c;
    float *best = s->value + i * c;
    int32_t *at = s->index + i * c;
    ptrdiff_t kept = 0;

    for (int t = 1; t < s->threads; t++) {
        for (ptrdiff_t e = 0; e < c; e++) {
            const ptrdiff_t from = (t * n + i) * c + e;
            offer(best, at, c, s->value[from], s->index[from]);
        }
    }
    for (ptrdiff_t e = 0; e < c && at[e] != INT32_MAX; e++) {
        kept = rank(value, index, s->k, kept, tier->gram_dot(u + i * d, u + at[e] * d, d), at[e]);
    }
    if (kept == s->k && (c == n - 1 || value[s->k - 1] > (double)best[c - 1] + rounding(s->g, i))) {
        return 0;
    }
    kept = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        if (j != i) {
            kept = rank(value, index, s->k, kept, tier->gram_dot(u + i * d, u + j * d, d), (int32_t)j);
        }
    }
    return 1;
}

sl_status
sl_near_finish(sl_near *s, const double *u, ptrdiff_t begin, ptrdiff_t end, int32_t *index, double *value,
               int64_t *searched)
{
    const sl_tier *tier = sl_tier_get();

    if (begin < 0 || end < begin || end > s->g->blocks) {
        return SL_ERR_ARG;
    }
#pragma omp parallel for num_threads(s->threads) if (s->threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t b = begin; b < end; b++) {
        int64_t full = 0;
        for (ptrdiff_t i = b * BLOCK; i < sl_min((b + 1) * BLOCK, s->g->n); i++) {
            full += settle(s, tier, u, i, index + i * s->k, value + i * s->k);
        }
#pragma omp atomic
        *searched += full;
    }
    return SL_OK;
}
