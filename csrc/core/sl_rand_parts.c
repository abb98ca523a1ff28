/* The index taken apart by concepts, and estimated from random pairs.  Contract: sl_rand.h; layout of blocks and tiles: sl_rand.c. */
#include "sl/sl_rand.h"

#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_rand_private.h"

enum { BLOCK = SL_RAND_BLOCK, PANELS = BLOCK / SL_RAND_COLS, TILE = SL_RAND_ROWS * SL_RAND_COLS, DRAWS = 1024 };

typedef struct {
    const sl_memberships *side[2];
    ptrdiff_t n;
    double unit;
    int64_t *parts;
    const sl_tier *tier;
} job;

/* A thread's buffers, for both sides. */
typedef struct {
    float *panels[2], *groups[2];
    float *half_col[2], *half_row[2], *m[2];
    double *part;    /* (K_P + K_Q) of a tile */
    int64_t *totals; /* (K_P + K_Q) of a block */
} scratch;

static ptrdiff_t
floats_needed(const job *w)
{
    const ptrdiff_t K = w->side[0]->k + w->side[1]->k;

    return (K * (BLOCK + SL_RAND_ROWS) + 2 * (BLOCK + SL_RAND_ROWS + TILE) + 15) & ~(ptrdiff_t)15;
}

static scratch
carve(const job *w, float *at, double *part, int64_t *totals)
{
    scratch s = {.part = part, .totals = totals};

    for (int r = 0; r < 2; r++) {
        s.panels[r] = at;
        s.groups[r] = s.panels[r] + w->side[r]->k * BLOCK;
        s.half_col[r] = s.groups[r] + w->side[r]->k * SL_RAND_ROWS;
        s.half_row[r] = s.half_col[r] + BLOCK;
        s.m[r] = s.half_row[r] + SL_RAND_ROWS;
        at = s.m[r] + TILE;
    }
    return s;
}

static void
visit_tile(const job *w, const scratch *s, ptrdiff_t row, ptrdiff_t block, ptrdiff_t panel)
{
    const ptrdiff_t col = block + panel * SL_RAND_COLS, k_p = w->side[0]->k, k_q = w->side[1]->k;
    float *sign = s->m[0];

    for (int r = 0; r < 2; r++) {
        w->tier->rand_tile(s->groups[r], s->panels[r] + panel * w->side[r]->k * SL_RAND_COLS, w->side[r]->k,
                           s->half_row[r], s->half_col[r] + panel * SL_RAND_COLS, s->m[r]);
    }
    for (ptrdiff_t t = 0; t < TILE; t++) {
        sign[t] = (float)((s->m[0][t] > s->m[1][t]) - (s->m[0][t] < s->m[1][t]));
    }
    if (row + SL_RAND_ROWS > col || col + SL_RAND_COLS > w->n) {
        sl_rand_mask(sign, w->n, row, col);
    }
    w->tier->rand_parts(s->groups[0], s->panels[0] + panel * k_p * SL_RAND_COLS, k_p, sign, s->part);
    w->tier->rand_parts(s->groups[1], s->panels[1] + panel * k_q * SL_RAND_COLS, k_q, sign, s->part + k_p);
    for (ptrdiff_t a = 0; a < k_p + k_q; a++) {
        s->totals[a] += sl_rand_fixed(s->part[a], w->unit);
    }
}

static void
visit_block(const job *w, const scratch *s, ptrdiff_t block)
{
    const ptrdiff_t K = w->side[0]->k + w->side[1]->k;

    memset(s->totals, 0, (size_t)K * sizeof *s->totals);
    for (int r = 0; r < 2; r++) {
        sl_rand_pack(w->side[r], w->n, block, BLOCK, SL_RAND_COLS, s->panels[r], s->half_col[r]);
    }
    for (ptrdiff_t row = 0; row < block + BLOCK && row < w->n; row += SL_RAND_ROWS) {
        for (int r = 0; r < 2; r++) {
            sl_rand_pack(w->side[r], w->n, row, SL_RAND_ROWS, 4, s->groups[r], s->half_row[r]);
        }
        for (ptrdiff_t panel = 0; panel < PANELS && block + panel * SL_RAND_COLS < w->n; panel++) {
            if (block + (panel + 1) * SL_RAND_COLS > row) {
                visit_tile(w, s, row, block, panel);
            }
        }
    }
    for (ptrdiff_t a = 0; a < K; a++) {
#pragma omp atomic
        w->parts[a] += s->totals[a];
    }
}

double
sl_rand_part_unit(ptrdiff_t n)
{
    return sl_rand_unit(n);
}

sl_status
sl_rand_parts(const sl_memberships *p, const sl_memberships *q, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
              int64_t *parts, int n_threads)
{
    job w = {.side = {p, q}, .n = n, .parts = parts, .tier = sl_tier_get()};
    const ptrdiff_t most = PTRDIFF_MAX / (64 * BLOCK);
    ptrdiff_t K, floats, size;
    float *at = NULL;
    double *part = NULL;
    int64_t *totals = NULL;
    sl_status status = SL_ERR_NOMEM;
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);

    if (n_threads < 1 || n < 2 || p->k < 0 || q->k < 0 || p->k > most || q->k > most || begin < 0 || end < begin ||
        end > sl_rand_blocks(n)) {
        return SL_ERR_ARG;
    }
    K = p->k + q->k;
    floats = floats_needed(&w);
    if (sl_mul(floats, threads, &size) < 0) {
        return SL_ERR_OVERFLOW;
    }
    w.unit = sl_rand_unit(n);
    at = sl_alloc(size, sizeof *at);
    part = sl_alloc((K + 8) * threads, sizeof *part);
    totals = sl_alloc((K + 8) * threads, sizeof *totals);
    if (at == NULL || part == NULL || totals == NULL) {
        goto done;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1 && end - begin > 1) schedule(dynamic, 1)
    for (ptrdiff_t b = 0; b < end - begin; b++) {
        const ptrdiff_t me = sl_thread_index();
        const scratch s = carve(&w, at + me * floats, part + me * (K + 8), totals + me * (K + 8));
        visit_block(&w, &s, (end - 1 - b) * BLOCK); /* the longest first */
    }
    status = SL_OK;
done:
    sl_free(totals);
    sl_free(part);
    sl_free(at);
    return status;
}

static uint64_t
mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A whole number below n < 2^32: the high half of the product with n. */
static ptrdiff_t
below(uint64_t random, ptrdiff_t n)
{
    const uint64_t high = random >> 32, low = random & UINT32_MAX, m = (uint64_t)n;

    return (ptrdiff_t)((high * m + (low * m >> 32)) >> 32);
}

void
sl_rand_pair(uint64_t seed, uint64_t draw, ptrdiff_t n, ptrdiff_t *i, ptrdiff_t *j)
{
    const uint64_t base = mix(seed + UINT64_C(0x9E3779B97F4A7C15)) + draw * UINT64_C(0x9E3779B97F4A7C15);

    *i = below(mix(base), n);
    *j = below(mix(base ^ UINT64_C(0xD1B54A32D192ED03)), n - 1);
    *j += *j >= *i;
}

typedef struct {
    const sl_memberships *reps;
    ptrdiff_t R, n;
    uint64_t seed;
    int64_t *sums, *bin_count, *bin_sum;
    const sl_tier *tier;
} lottery;

/* Draws [begin, end); m (R) and sums (R(R-1)/2, 2) are workspace. */
static void
draw_some(const lottery *w, ptrdiff_t begin, ptrdiff_t end, double *m, int64_t *sums)
{
    const ptrdiff_t entries = w->R * (w->R - 1);
    const double unit = 0x1p30;

    memset(sums, 0, (size_t)entries * sizeof *sums);
    for (ptrdiff_t t = begin; t < end; t++) {
        ptrdiff_t i, j, at = 0;
        sl_rand_pair(w->seed, (uint64_t)t, w->n, &i, &j);
        for (ptrdiff_t r = 0; r < w->R; r++) {
            const sl_memberships *rep = &w->reps[r];
            const double x = w->tier->rand_distance(rep->p + i * rep->k, rep->p + j * rep->k, rep->k);
            const double kept = x < 1.0 ? x : 1.0;
            const ptrdiff_t b = (ptrdiff_t)(kept * SL_RAND_BINS), bin = b < SL_RAND_BINS ? b : SL_RAND_BINS - 1;
            const int64_t amount = sl_rand_fixed(kept, unit);
            m[r] = x;
#pragma omp atomic
            w->bin_count[r * SL_RAND_BINS + bin] += 1;
#pragma omp atomic
            w->bin_sum[r * SL_RAND_BINS + bin] += amount;
        }
        for (ptrdiff_t r = 0; r < w->R; r++) {
            for (ptrdiff_t q = r + 1; q < w->R; q++) {
                const double apart = fabs(m[r] - m[q]);
                sums[at++] += sl_rand_fixed(apart, unit);
                sums[at++] += sl_rand_fixed(apart * apart, unit);
            }
        }
    }
    for (ptrdiff_t at = 0; at < entries; at++) {
#pragma omp atomic
        w->sums[at] += sums[at];
    }
}

sl_status
sl_rand_draw(const sl_memberships *reps, ptrdiff_t R, ptrdiff_t n, uint64_t seed, ptrdiff_t begin, ptrdiff_t end,
             int64_t *sums, int64_t *bin_count, int64_t *bin_sum, int n_threads)
{
    const lottery w = {reps, R, n, seed, sums, bin_count, bin_sum, sl_tier_get()};
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);
    ptrdiff_t each;
    int64_t *totals = NULL;
    double *m = NULL;
    sl_status status = SL_ERR_NOMEM;

    if (n_threads < 1 || R < 1 || R > 1 << 15 || n < 2 || n > UINT32_MAX || begin < 0 || end < begin ||
        end > (ptrdiff_t)1 << 32) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t r = 0; r < R; r++) {
        if (reps[r].k < 0) {
            return SL_ERR_ARG;
        }
    }
    each = (R * (R - 1) + 7) & ~(ptrdiff_t)7;
    totals = sl_alloc(each * threads, sizeof *totals);
    m = sl_alloc((R + 8) * threads, sizeof *m);
    if (totals == NULL || m == NULL) {
        goto done;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1 && end - begin > DRAWS) schedule(dynamic, 1)
    for (ptrdiff_t t = begin; t < end; t += DRAWS) {
        const ptrdiff_t me = sl_thread_index();
        draw_some(&w, t, t + DRAWS < end ? t + DRAWS : end, m + me * (R + 8), totals + me * each);
    }
    status = SL_OK;
done:
    sl_free(m);
    sl_free(totals);
    return status;
}
