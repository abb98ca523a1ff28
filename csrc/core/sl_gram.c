/* Passes over all pairs of rows, block of pairs by block of pairs.  Contract: sl_measures.h.  Inner loops: tier_gram_inl.h. */
#include "sl/sl_measures.h"

#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_gram_private.h"

enum { BLOCK = SL_GRAM_BLOCK, TILE = BLOCK * BLOCK };

void
sl_gram_free(sl_gram *g)
{
    if (g != NULL) {
        sl_free(g->square);
        sl_free(g->right);
        sl_free(g->left);
        sl_free(g);
    }
}

/* One group of rows in both packed forms; rows that do not exist become 0. */
static void
pack_group(const sl_tier *tier, const sl_gram *g, const float *x, ptrdiff_t first, ptrdiff_t width, float *to)
{
    const ptrdiff_t rows = sl_min(width, g->n > first ? g->n - first : 0);

    for (ptrdiff_t k0 = 0; k0 < g->d; k0 += g->kblock) {
        const ptrdiff_t depth = sl_min(g->kblock, g->d - k0);
        const float *source = rows > 0 ? x + first * g->d + k0 : x;
        float *packed = to + k0 * g->height + first * depth;
        if (to == g->left) {
            tier->pack_a(source, g->d, rows, depth, packed);
        } else {
            tier->pack_b(source, g->d, rows, depth, packed);
        }
    }
}

static void
fill(sl_gram *g, const float *x, int threads)
{
    const sl_tier *tier = sl_tier_get();

#pragma omp parallel for num_threads(threads) if (threads > 1 && g->n * g->d > 1 << 17) schedule(static)
    for (ptrdiff_t b = 0; b < g->blocks; b++) {
        for (ptrdiff_t i = b * BLOCK; i < (b + 1) * BLOCK; i += tier->mr) {
            pack_group(tier, g, x, i, tier->mr, g->left);
        }
        for (ptrdiff_t i = b * BLOCK; i < (b + 1) * BLOCK; i += tier->nr) {
            pack_group(tier, g, x, i, tier->nr, g->right);
        }
        for (ptrdiff_t i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
            double sum = 0.0;
            for (ptrdiff_t j = 0; i < g->n && j < g->d; j++) {
                sum += (double)x[i * g->d + j] * (double)x[i * g->d + j];
            }
            g->square[i] = (float)sum;
        }
    }
    for (ptrdiff_t i = 0; i < g->n; i++) {
        g->longest = fmaxf(g->longest, g->square[i]);
    }
    g->longest = nextafterf(sqrtf(g->longest), HUGE_VALF);
}

sl_status
sl_gram_new(const float *x, ptrdiff_t n, ptrdiff_t d, int n_threads, sl_gram **out)
{
    ptrdiff_t size;
    sl_gram *g;

    *out = NULL;
    if (n < 2 || d < 1 || n > INT32_MAX / 2 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    if (sl_mul(n, d, &size) < 0 || sl_mul(sl_round_up(n, BLOCK), d, &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    for (ptrdiff_t i = 0; i < n * d; i++) {
        if (!isfinite(x[i])) {
            return SL_ERR_NUMERIC;
        }
    }
    g = sl_alloc(1, sizeof *g);
    if (g == NULL) {
        return SL_ERR_NOMEM;
    }
    *g = (sl_gram){.n = n, .d = d, .blocks = sl_gram_blocks(n), .kblock = sl_gemm_kblock(d)};
    g->height = g->blocks * BLOCK;
    g->left = sl_alloc(size, sizeof *g->left);
    g->right = sl_alloc(size, sizeof *g->right);
    g->square = sl_alloc(g->height, sizeof *g->square);
    if (g->left == NULL || g->right == NULL || g->square == NULL) {
        sl_gram_free(g);
        return SL_ERR_NOMEM;
    }
    fill(g, x, sl_threads(n_threads));
    *out = g;
    return SL_OK;
}

ptrdiff_t
sl_gram_blocks(ptrdiff_t n)
{
    return n > 0 ? (n - 1) / BLOCK + 1 : 0;
}

void
sl_gram_product(const sl_tier *tier, const sl_gram *g, ptrdiff_t block_row, ptrdiff_t block_column, float *c)
{
    const ptrdiff_t rows = sl_min(BLOCK, g->n - block_row * BLOCK);
    const ptrdiff_t columns = sl_round_up(sl_min(BLOCK, g->n - block_column * BLOCK), tier->nr);

    for (ptrdiff_t k0 = 0; k0 < g->d; k0 += g->kblock) {
        const ptrdiff_t depth = sl_min(g->kblock, g->d - k0);
        const sl_epilogue e = {.first = k0 == 0, .last = k0 + depth == g->d, .activation = SL_ACT_NONE};
        const float *a = g->left + k0 * g->height + block_row * BLOCK * depth;
        const float *b = g->right + k0 * g->height + block_column * BLOCK * depth;
        for (ptrdiff_t j = 0; j < columns; j += tier->nr) {
            tier->gemm_panel(a, rows, depth, b + j * depth, tier->nr, tier->nr, c + j, BLOCK, &e);
        }
    }
}

/* What one call does: the blocks of pairs [begin, end) x blocks, each with a result of its own. */
typedef struct {
    const sl_gram *x, *y; /* y is NULL where there is one representation */
    const sl_gram_grid *grid_x, *grid_y;
    const float *score_x, *score_y;
    float rate_x, rate_y;
    ptrdiff_t begin, end;
    int64_t *count, *rows_x, *rows_y;
    double *sums; /* (end - begin, blocks, 3) */
    const sl_tier *tier;
} job;

/* A thread's buffers. */
typedef struct {
    float *k, *l;    /* (BLOCK, BLOCK) products */
    int32_t *bins;   /* (2, BLOCK) */
    double *columns; /* (2, BLOCK) */
    int64_t *count;  /* (bins), of this thread alone */
} buffers;

static void
find_bins(const job *w, const sl_gram *g, const sl_gram_grid *grid, const float *products, ptrdiff_t i, ptrdiff_t first,
          ptrdiff_t n, int32_t *bins)
{
    const double width = grid->high - grid->low;

    w->tier->gram_bins(products, grid->distance ? g->square + first : NULL, g->square[i], (float)grid->low,
                       (float)((double)grid->bins / width), (int32_t)(grid->bins - 1), n, bins);
}

static void
count_block(const job *w, const buffers *own, ptrdiff_t row, ptrdiff_t column)
{
    sl_gram_product(w->tier, w->x, row, column, own->k);
    for (ptrdiff_t r = 0; r < sl_min(BLOCK, w->x->n - row * BLOCK); r++) {
        const ptrdiff_t i = row * BLOCK + r;
        ptrdiff_t from, to;
        sl_gram_columns(w->x, i, column, &from, &to);
        find_bins(w, w->x, w->grid_x, own->k + r * BLOCK + from, i, column * BLOCK + from, to - from, own->bins);
        for (ptrdiff_t j = 0; j < to - from; j++) {
            own->count[own->bins[j]]++;
        }
    }
}

static void
score_block(const job *w, const buffers *own, ptrdiff_t row, ptrdiff_t column, double *sums)
{
    int32_t *bins_x = own->bins, *bins_y = own->bins + BLOCK;
    double lanes[4] = {0.0};

    sl_gram_product(w->tier, w->x, row, column, own->k);
    sl_gram_product(w->tier, w->y, row, column, own->l);
    for (ptrdiff_t r = 0; r < sl_min(BLOCK, w->x->n - row * BLOCK); r++) {
        const ptrdiff_t i = row * BLOCK + r;
        ptrdiff_t from, to;
        sl_gram_columns(w->x, i, column, &from, &to);
        find_bins(w, w->x, w->grid_x, own->k + r * BLOCK + from, i, column * BLOCK + from, to - from, bins_x);
        find_bins(w, w->y, w->grid_y, own->l + r * BLOCK + from, i, column * BLOCK + from, to - from, bins_y);
        for (ptrdiff_t j = 0; j < to - from; j++) {
            lanes[j % 4] += (double)w->score_x[bins_x[j]] * (double)w->score_y[bins_y[j]];
        }
    }
    sums[0] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

static void
add_fixed(int64_t *to, double amount)
{
    const int64_t units = (int64_t)llrint(amount * SL_GRAM_UNIT);

#pragma omp atomic
    *to += units;
}

static void
gauss_block(const job *w, const buffers *own, ptrdiff_t row, ptrdiff_t column, double *sums)
{
    double *col_k = own->columns, *col_l = own->columns + BLOCK;
    const ptrdiff_t first = column * BLOCK;

    sl_gram_product(w->tier, w->x, row, column, own->k);
    sl_gram_product(w->tier, w->y, row, column, own->l);
    memset(own->columns, 0, 2 * BLOCK * sizeof *own->columns);
    for (ptrdiff_t r = 0; r < sl_min(BLOCK, w->x->n - row * BLOCK); r++) {
        const ptrdiff_t i = row * BLOCK + r;
        float *k = own->k + r * BLOCK, *l = own->l + r * BLOCK;
        double part[5];
        ptrdiff_t from, to;
        sl_gram_columns(w->x, i, column, &from, &to);
        w->tier->gram_gauss(k + from, w->x->square + first + from, w->x->square[i], w->rate_x, to - from);
        w->tier->gram_gauss(l + from, w->y->square + first + from, w->y->square[i], w->rate_y, to - from);
        w->tier->gram_sums(k + from, l + from, to - from, col_k + from, col_l + from, part);
        for (int t = 0; t < 3; t++) {
            sums[t] += part[t];
        }
        add_fixed(&w->rows_x[i], part[3]);
        add_fixed(&w->rows_y[i], part[4]);
    }
    for (ptrdiff_t j = 0; j < sl_min(BLOCK, w->x->n - first); j++) {
        add_fixed(&w->rows_x[first + j], col_k[j]);
        add_fixed(&w->rows_y[first + j], col_l[j]);
    }
}

static void
visit(const job *w, const buffers *own, ptrdiff_t t)
{
    const ptrdiff_t row = w->begin + t / w->x->blocks, column = t % w->x->blocks;

    if (column < row) {
        return;
    }
    if (w->count != NULL) {
        count_block(w, own, row, column);
    } else if (w->score_x != NULL) {
        score_block(w, own, row, column, w->sums + 3 * t);
    } else {
        gauss_block(w, own, row, column, w->sums + 3 * t);
    }
}

/* Runs the job; totals (3) += the sums of the blocks in their order. */
static sl_status
run(job *w, double *totals, int n_threads)
{
    const int threads = sl_threads(n_threads);
    const ptrdiff_t blocks = (w->end - w->begin) * w->x->blocks, bins = w->count != NULL ? w->grid_x->bins : 0;
    float *tiles = sl_alloc(2 * TILE * (ptrdiff_t)threads, sizeof *tiles);
    int32_t *slots = sl_alloc(2 * BLOCK * (ptrdiff_t)threads, sizeof *slots);
    double *columns = sl_alloc(2 * BLOCK * (ptrdiff_t)threads, sizeof *columns);
    int64_t *counts = sl_alloc(bins * threads, sizeof *counts);
    sl_status status = SL_ERR_NOMEM;

    w->tier = sl_tier_get();
    w->sums = sl_alloc(3 * blocks, sizeof *w->sums);
    if (tiles == NULL || slots == NULL || columns == NULL || counts == NULL || w->sums == NULL) {
        goto done;
    }
    memset(w->sums, 0, (size_t)(3 * blocks) * sizeof *w->sums);
    memset(counts, 0, (size_t)(bins * threads) * sizeof *counts);
#pragma omp parallel for num_threads(threads) if (threads > 1 && blocks > 1) schedule(dynamic, 1)
    for (ptrdiff_t t = 0; t < blocks; t++) {
        const ptrdiff_t me = sl_thread_index();
        const buffers own = {tiles + me * 2 * TILE, tiles + me * 2 * TILE + TILE, slots + me * 2 * BLOCK,
                             columns + me * 2 * BLOCK, counts + me * bins};
        visit(w, &own, t);
    }
    for (ptrdiff_t b = 0; b < bins; b++) {
        for (int t = 0; t < threads; t++) {
            w->count[b] += counts[t * bins + b];
        }
    }
    for (ptrdiff_t t = 0; t < 3 * blocks; t++) {
        totals[t % 3] += w->sums[t];
    }
    status = SL_OK;
done:
    sl_free(w->sums);
    sl_free(counts);
    sl_free(columns);
    sl_free(slots);
    sl_free(tiles);
    return status;
}

static int
bad_range(const sl_gram *g, ptrdiff_t begin, ptrdiff_t end, int n_threads)
{
    return n_threads < 1 || begin < 0 || end < begin || end > g->blocks;
}

static int
bad_grid(const sl_gram_grid *grid)
{
    return grid->bins < 1 || grid->bins > 1 << 24 || !(grid->high > grid->low) || !isfinite(grid->high - grid->low);
}

sl_status
sl_gram_count(const sl_gram *gram, const sl_gram_grid *grid, ptrdiff_t begin, ptrdiff_t end, int64_t *count,
              int n_threads)
{
    job w = {.x = gram, .grid_x = grid, .begin = begin, .end = end, .count = count};
    double none[3] = {0.0};

    return bad_range(gram, begin, end, n_threads) || bad_grid(grid) ? SL_ERR_ARG : run(&w, none, n_threads);
}

sl_status
sl_gram_score(const sl_gram *x, const sl_gram_grid *grid_x, const float *score_x, const sl_gram *y,
              const sl_gram_grid *grid_y, const float *score_y, ptrdiff_t begin, ptrdiff_t end, double *sum,
              int n_threads)
{
    job w = {.x = x, .y = y, .grid_x = grid_x, .grid_y = grid_y, .score_x = score_x, .score_y = score_y};
    double totals[3] = {*sum};
    sl_status status;

    if (x->n != y->n || bad_range(x, begin, end, n_threads) || bad_grid(grid_x) || bad_grid(grid_y)) {
        return SL_ERR_ARG;
    }
    w.begin = begin;
    w.end = end;
    status = run(&w, totals, n_threads);
    *sum = totals[0];
    return status;
}

sl_status
sl_gram_gauss(const sl_gram *x, double rate_x, const sl_gram *y, double rate_y, ptrdiff_t begin, ptrdiff_t end,
              double *sums, int64_t *rows_x, int64_t *rows_y, int n_threads)
{
    job w = {.x = x, .y = y, .rate_x = (float)rate_x, .rate_y = (float)rate_y, .rows_x = rows_x, .rows_y = rows_y};

    if (x->n != y->n || bad_range(x, begin, end, n_threads) || !(rate_x >= 0.0) || !(rate_y >= 0.0)) {
        return SL_ERR_ARG;
    }
    w.begin = begin;
    w.end = end;
    return run(&w, sums, n_threads);
}
