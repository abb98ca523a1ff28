/* Generalized Rand index of many representations in one pass over the pairs.  Contract: sl_rand.h.
 *
 * A block is SL_RAND_BLOCK columns j; its task visits all rows i < j in strips of SL_RAND_ROWS.  The block's columns of every
 * representation are packed once into panels [k][48], the strip's rows into groups [k][4], so that the innermost loop reads both
 * contiguously.  The pair distances m_r of a 64 x 48 tile are formed for all representations before any two are compared: each
 * representation costs its own concepts once, however many others there are. */
#include "sl/sl_rand.h"

#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_rand_private.h"

enum {
    BLOCK = SL_RAND_BLOCK,
    PANELS = BLOCK / SL_RAND_COLS,
    TILE = SL_RAND_ROWS * SL_RAND_COLS,
    FED = SL_RAND_ROWS * SL_RAND_FEED
};
enum {
    COPIES = 2
}; /* of the distributions: neighbours often share a bin, and an addition to memory waits for the one before */
enum { FLUSH = 2048 }; /* parts of tiles after which they are emptied, before a counter is full */
enum { PART_BITS = 30 - 12, COUNT_SHIFT = 42, PLACES = SL_RAND_BINS + 1 }; /* see count_bins */

/* Where the parts of the shared integer sums lie. */
typedef struct {
    ptrdiff_t pairs, difference, distance, rows, bin_count, bin_sum, size;
} layout;

static int
plan(ptrdiff_t R, ptrdiff_t n, int with_rows, layout *at)
{
    ptrdiff_t rows, bins;

    if (R < 1 || n < 2 || R > 1 << 15 || sl_mul(R, R - 1, &at->pairs) < 0) {
        return -1;
    }
    at->pairs /= 2;
    if (sl_mul(at->pairs, with_rows ? n : 0, &rows) < 0 || sl_mul(R, SL_RAND_BINS, &bins) < 0 ||
        rows > PTRDIFF_MAX / 4) {
        return -1;
    }
    at->difference = 0;
    at->distance = at->pairs;
    at->rows = at->distance + R;
    at->bin_count = at->rows + rows;
    at->bin_sum = at->bin_count + bins;
    at->size = at->bin_sum + bins;
    return 0;
}

/* A thread's buffers, carved from one allocation. */
typedef struct {
    float *panels;    /* per representation (PANELS, k, SL_RAND_COLS) */
    float *groups;    /* (16, k, 4) of the strip, per representation */
    float *half_col;  /* (R, BLOCK) */
    float *half_row;  /* (R, SL_RAND_ROWS) */
    float *m;         /* (R, TILE) */
    float *row_sum;   /* (pairs, TILE), or none */
    int64_t *totals;  /* (pairs + R), then (pairs, BLOCK) column sums if rows are wanted */
    uint64_t *bins;   /* COPIES of (R, PLACES), or none */
    int32_t *place;   /* (FED) */
    ptrdiff_t filled; /* parts of tiles in the bins */
} scratch;

typedef struct {
    const sl_memberships *reps;
    const ptrdiff_t *first; /* (R + 1) running sum of k */
    ptrdiff_t R, n;
    layout at;
    double unit;
    int with_rows;
    int64_t *sums;
    const sl_tier *tier;
} job;

static ptrdiff_t
floats_needed(const job *w)
{
    return w->first[w->R] * (BLOCK + SL_RAND_ROWS) + w->R * (BLOCK + SL_RAND_ROWS + TILE) +
           (w->with_rows ? w->at.pairs * TILE : 0);
}

static ptrdiff_t
totals_needed(const job *w)
{
    return (w->at.pairs + w->R + (w->with_rows ? w->at.pairs * BLOCK : 0) + 7) & ~(ptrdiff_t)7;
}

static scratch
carve(const job *w, float *floats, int64_t *totals)
{
    scratch s;
    const ptrdiff_t K = w->first[w->R];

    s.panels = floats;
    s.groups = s.panels + K * BLOCK;
    s.half_col = s.groups + K * SL_RAND_ROWS;
    s.half_row = s.half_col + w->R * BLOCK;
    s.m = s.half_row + w->R * SL_RAND_ROWS;
    s.row_sum = w->with_rows ? s.m + w->R * TILE : NULL;
    s.totals = totals;
    s.bins = NULL;
    s.place = NULL;
    s.filled = 0;
    return s;
}

/* A distance of p 2^-30 falls into bin p / 2^18: one number there counts it, from bit 42 on, and sums what it is above the bin's lower end, below. */
static void
count_bins(const job *w, const scratch *s, const float *restrict m, ptrdiff_t r, ptrdiff_t row, ptrdiff_t col, int edge)
{
    const uint64_t one = UINT64_C(1) << COUNT_SHIFT, rest = (UINT64_C(1) << PART_BITS) - 1;
    uint64_t *restrict bins = s->bins + r * PLACES;
    const int32_t *restrict place = s->place;
    const ptrdiff_t next = w->R * PLACES;

    w->tier->rand_places(m, s->place);
    for (ptrdiff_t t = 0; t < FED; t += COPIES) {
        for (ptrdiff_t copy = 0; copy < COPIES; copy++) {
            const uint64_t p = (uint64_t)place[t + copy];
            bins[copy * next + (ptrdiff_t)(p >> PART_BITS)] += one + (p & rest);
        }
    }
    for (ptrdiff_t i = 0; edge && i < SL_RAND_ROWS; i++) { /* pairs that do not exist were counted as 0 */
        for (ptrdiff_t j = 0; j < SL_RAND_FEED; j++) {
            bins[0] -= col + j < w->n && row + i < col + j ? 0 : one;
        }
    }
}

/* Adds a thread's distributions to the shared ones, and empties them.  In the first copy's bin 0, a negative count may wait for the other copies'. */
static void
flush_bins(const job *w, scratch *s)
{
    const ptrdiff_t size = w->R * PLACES;

    for (ptrdiff_t at = 0; at < size; at++) {
        const ptrdiff_t r = at / PLACES, b = at % PLACES;
        const ptrdiff_t to = r * SL_RAND_BINS + (b < SL_RAND_BINS ? b : SL_RAND_BINS - 1);
        uint64_t both = 0;
        for (int copy = 0; copy < COPIES; copy++) {
            both += s->bins[copy * size + at];
            s->bins[copy * size + at] = 0;
        }
        if (both != 0) {
            const int64_t count = (int64_t)(both >> COUNT_SHIFT);
            const int64_t part = (int64_t)(both & ((UINT64_C(1) << COUNT_SHIFT) - 1));
#pragma omp atomic
            w->sums[w->at.bin_count + to] += count;
#pragma omp atomic
            w->sums[w->at.bin_sum + to] +=
                part + (b == SL_RAND_BINS ? count << PART_BITS : 0); /* 1 is in the last bin */
        }
    }
    s->filled = 0;
}

/* Adds the tile's sums over columns to the thread's totals; x = 0 stands for "no second representation". */
static void
add_columns(const float *restrict col, double unit, int64_t *restrict total, int64_t *restrict columns)
{
    for (int j = 0; j < SL_RAND_COLS; j++) {
        const int64_t amount = sl_rand_fixed((double)col[j], unit);
        *total += amount;
        if (columns != NULL) {
            columns[j] += amount;
        }
    }
}

static void
visit_tile(const job *w, scratch *s, ptrdiff_t row, ptrdiff_t block, ptrdiff_t panel, unsigned feeding)
{
    static const float zeros[TILE] = {0.0f};
    const ptrdiff_t col = block + panel * SL_RAND_COLS;
    const int edge = row + SL_RAND_ROWS > col || col + SL_RAND_COLS > w->n;
    float columns[SL_RAND_COLS];
    ptrdiff_t pair = 0;

    for (ptrdiff_t r = 0; r < w->R; r++) {
        const ptrdiff_t k = w->reps[r].k;
        float *m = s->m + r * TILE;
        w->tier->rand_tile(s->groups + w->first[r] * SL_RAND_ROWS,
                           s->panels + w->first[r] * BLOCK + panel * k * SL_RAND_COLS, k,
                           s->half_row + r * SL_RAND_ROWS, s->half_col + r * BLOCK + panel * SL_RAND_COLS, m);
        if (edge) {
            sl_rand_mask(m, w->n, row, col);
        }
        for (ptrdiff_t c = 0; c < SL_RAND_COLS; c += SL_RAND_FEED) {
            if (feeding >> (c / SL_RAND_FEED) & 1U) {
                count_bins(w, s, m + c, r, row, col + c, edge);
            }
        }
        w->tier->rand_difference(m, zeros, columns, NULL);
        add_columns(columns, w->unit, s->totals + w->at.pairs + r, NULL);
    }
    for (ptrdiff_t r = 0; r < w->R; r++) {
        for (ptrdiff_t q = r + 1; q < w->R; q++, pair++) {
            w->tier->rand_difference(s->m + r * TILE, s->m + q * TILE, columns,
                                     w->with_rows ? s->row_sum + pair * TILE : NULL);
            add_columns(columns, w->unit, s->totals + pair,
                        w->with_rows ? s->totals + w->at.pairs + w->R + pair * BLOCK + panel * SL_RAND_COLS : NULL);
        }
    }
}

/* Adds the strip's row sums to the shared ones. */
static void
flush_rows(const job *w, const scratch *s, ptrdiff_t row)
{
    for (ptrdiff_t pair = 0; pair < w->at.pairs; pair++) {
        for (ptrdiff_t i = 0; i < SL_RAND_ROWS && row + i < w->n; i++) {
            const float *lanes = s->row_sum + pair * TILE + i * SL_RAND_COLS;
            double sum[8] = {0.0}; /* that do not wait for each other */
            for (int j = 0; j < SL_RAND_COLS; j += 8) {
                for (int l = 0; l < 8; l++) {
                    sum[l] += (double)lanes[j + l];
                }
            }
            const double all = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
            const int64_t amount = sl_rand_fixed(all, w->unit);
#pragma omp atomic
            w->sums[w->at.rows + pair * w->n + row + i] += amount;
        }
    }
}

static void
flush_block(const job *w, const scratch *s, ptrdiff_t block)
{
    for (ptrdiff_t t = 0; t < w->at.pairs + w->R; t++) {
#pragma omp atomic
        w->sums[t] += s->totals[t];
    }
    for (ptrdiff_t pair = 0; w->with_rows && pair < w->at.pairs; pair++) {
        for (ptrdiff_t j = 0; j < BLOCK && block + j < w->n; j++) {
#pragma omp atomic
            w->sums[w->at.rows + pair * w->n + block + j] += s->totals[w->at.pairs + w->R + pair * BLOCK + j];
        }
    }
}

/* Which parts of a tile feed the distributions, a bit each: every bin_every-th, by its place alone, scattered so that all rows have their share. */
static unsigned
feeding_parts(const job *w, ptrdiff_t row, ptrdiff_t col, int bin_every)
{
    unsigned parts = 0;

    for (ptrdiff_t c = 0; bin_every > 0 && c < SL_RAND_COLS; c += SL_RAND_FEED) {
        uint64_t place = (uint64_t)(row / SL_RAND_ROWS) << 32 | (uint64_t)((col + c) / SL_RAND_FEED);
        place = (place ^ (place >> 31)) * UINT64_C(0xBF58476D1CE4E5B9);
        place = (place ^ (place >> 29)) * UINT64_C(0x94D049BB133111EB);
        if (col + c < w->n && row < col + c + SL_RAND_FEED && (place >> 33) % (uint64_t)bin_every == 0) {
            parts |= 1U << (c / SL_RAND_FEED);
        }
    }
    return parts;
}

static void
visit_block(const job *w, scratch *s, ptrdiff_t index, int bin_every)
{
    const ptrdiff_t block = index * BLOCK;

    memset(s->totals, 0, (size_t)totals_needed(w) * sizeof *s->totals);
    for (ptrdiff_t r = 0; r < w->R; r++) {
        sl_rand_pack(&w->reps[r], w->n, block, BLOCK, SL_RAND_COLS, s->panels + w->first[r] * BLOCK,
                     s->half_col + r * BLOCK);
    }
    for (ptrdiff_t row = 0; row < block + BLOCK && row < w->n; row += SL_RAND_ROWS) {
        for (ptrdiff_t r = 0; r < w->R; r++) {
            sl_rand_pack(&w->reps[r], w->n, row, SL_RAND_ROWS, 4, s->groups + w->first[r] * SL_RAND_ROWS,
                         s->half_row + r * SL_RAND_ROWS);
        }
        if (w->with_rows) {
            memset(s->row_sum, 0, (size_t)(w->at.pairs * TILE) * sizeof *s->row_sum);
        }
        for (ptrdiff_t panel = 0; panel < PANELS && block + panel * SL_RAND_COLS < w->n; panel++) {
            if (block + (panel + 1) * SL_RAND_COLS <= row) {
                continue; /* wholly on the other side of the diagonal */
            }
            const unsigned feeding = feeding_parts(w, row, block + panel * SL_RAND_COLS, bin_every);
            visit_tile(w, s, row, block, panel, feeding);
            s->filled += (feeding & 1U) + (feeding >> 1 & 1U) + (feeding >> 2);
        }
        if (s->filled > FLUSH) {
            flush_bins(w, s);
        }
        if (w->with_rows) {
            flush_rows(w, s, row);
        }
    }
    flush_block(w, s, block);
}

ptrdiff_t
sl_rand_blocks(ptrdiff_t n)
{
    return n > 0 ? (n - 1) / BLOCK + 1 : 0;
}

ptrdiff_t
sl_rand_sums_size(ptrdiff_t R, ptrdiff_t n, int with_rows)
{
    layout at;

    return plan(R, n, with_rows, &at) < 0 ? -1 : at.size;
}

sl_status
sl_rand_accumulate(const sl_memberships *reps, ptrdiff_t R, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end, int bin_every,
                   int with_rows, int64_t *sums, int n_threads)
{
    job w = {.reps = reps, .R = R, .n = n, .with_rows = with_rows, .sums = sums, .tier = sl_tier_get()};
    ptrdiff_t *first = NULL, per_thread, all, blocks = end - begin;
    float *floats = NULL;
    int64_t *totals = NULL;
    uint64_t *bins = NULL;
    int32_t *places = NULL;
    const ptrdiff_t bins_each = bin_every > 0 ? (COPIES * R * PLACES + 7) & ~(ptrdiff_t)7 : 0;
    sl_status status = SL_ERR_NOMEM;
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);

    if (n_threads < 1 || bin_every < 0 || R < 1 || n < 2 || begin < 0 || end < begin || end > sl_rand_blocks(n)) {
        return SL_ERR_ARG;
    }
    if (plan(R, n, with_rows, &w.at) < 0) {
        return SL_ERR_OVERFLOW;
    }
    w.unit = sl_rand_unit(n);
    first = sl_alloc(R + 1, sizeof *first);
    if (first == NULL) {
        return SL_ERR_NOMEM;
    }
    first[0] = 0;
    for (ptrdiff_t r = 0; r < R; r++) {
        if (reps[r].k < 0 || reps[r].k > PTRDIFF_MAX / (8 * BLOCK) / R) {
            status = SL_ERR_ARG;
            goto done;
        }
        first[r + 1] = first[r] + reps[r].k;
    }
    w.first = first;
    per_thread = (floats_needed(&w) + 15) & ~(ptrdiff_t)15;
    if (sl_mul(per_thread, threads, &all) < 0) {
        status = SL_ERR_OVERFLOW;
        goto done;
    }
    floats = sl_alloc(all, sizeof *floats);
    totals = sl_alloc(totals_needed(&w) * threads, sizeof *totals);
    bins = sl_alloc(bins_each * threads, sizeof *bins);
    places = sl_alloc(FED * (ptrdiff_t)threads, sizeof *places);
    if (floats == NULL || totals == NULL || bins == NULL || places == NULL) {
        goto done;
    }
#pragma omp parallel num_threads(threads) if (threads > 1 && blocks > 1)
    {
        const int t = sl_thread_index();
        scratch s = carve(&w, floats + t * per_thread, totals + t * totals_needed(&w));
        s.bins = bins + t * bins_each;
        s.place = places + t * FED;
        memset(s.bins, 0, (size_t)bins_each * sizeof *s.bins);
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t b = 0; b < blocks; b++) {
            visit_block(&w, &s, end - 1 - b, bin_every); /* the longest first */
        }
        if (bins_each > 0) {
            flush_bins(&w, &s);
        }
    }
    status = SL_OK;
done:
    sl_free(places);
    sl_free(bins);
    sl_free(totals);
    sl_free(floats);
    sl_free(first);
    return status;
}

sl_status
sl_rand_finish(const int64_t *sums, ptrdiff_t R, ptrdiff_t n, int with_rows, const sl_rand_result *result)
{
    layout at;
    const double scale = 1.0 / (sl_rand_unit(n < 2 ? 2 : n) * 0.5 * (double)n * (double)(n - 1));
    ptrdiff_t pair = 0;

    if (plan(R, n, with_rows, &at) < 0 || (result->row_difference != NULL && !with_rows)) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t r = 0; r < R; r++) {
        if (result->mean_distance != NULL) {
            result->mean_distance[r] = (double)sums[at.distance + r] * scale;
        }
        for (ptrdiff_t q = r; result->mean_difference != NULL && q < R; q++) {
            const double d = q == r ? 0.0 : (double)sums[at.difference + pair++] * scale;
            result->mean_difference[r * R + q] = result->mean_difference[q * R + r] = d;
        }
    }
    for (ptrdiff_t i = 0; result->row_difference != NULL && i < at.pairs * n; i++) {
        result->row_difference[i] = (double)sums[at.rows + i] / (sl_rand_unit(n) * (double)(n - 1));
    }
    for (ptrdiff_t b = 0; b < R * SL_RAND_BINS; b++) {
        if (result->bin_count != NULL) {
            result->bin_count[b] = sums[at.bin_count + b];
        }
        if (result->bin_sum != NULL) {
            result->bin_sum[b] = (double)sums[at.bin_count + b] * (double)(b % SL_RAND_BINS) / SL_RAND_BINS +
                                 (double)sums[at.bin_sum + b] * 0x1p-30;
        }
    }
    return SL_OK;
}
