/* Streaming selection.  Contract: sl_topm.h.
 *
 * A value is compared once with its component's limit (vectorised, per instruction set).  What passes is appended to a short list of candidates:
 * one store, no read of the component's list.  Only when that is full are the candidates sorted and merged, so that lists of hundreds of bytes
 * per component are touched once per SL_TOPM_PENDING candidates, not once per candidate. */
#include "sl/sl_topm.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_tier.h"

enum {
    TILE = 1024,         /* components per block of work: limits and hits of a block stay in the first-level cache */
    SERIAL = 1 << 19,    /* values below which threads cost more than they bring */
    SERIAL_FLUSH = 1024, /* components, likewise */
};
_Static_assert(SL_TOPM_PENDING % 16 == 0, "ranks are computed on whole vectors");
_Static_assert(sizeof(sl_candidate) == 16, "the glue hands candidates over as pairs of 64-bit words");

/* Is (score, id) before (other, other_id)? */
static inline int
before(float score, int64_t id, float other, int64_t other_id)
{
    return score > other || (score == other && id < other_id);
}

static float
next_below(float x)
{
    return nextafterf(x, -INFINITY);
}

/* What a value must exceed to be looked at: the limit itself if no id on offer could win a tie at it, else the number below. */
static inline float
reject_up_to(const sl_topm *s, ptrdiff_t k, int64_t smallest_id)
{
    return s->limit_ids[k] < smallest_id ? s->limits[k] : next_below(s->limits[k]);
}

static void
set_limit(const sl_topm *s, ptrdiff_t k)
{
    const int full = s->counts[k] == s->m;

    s->limits[k] = full ? s->scores[k * s->m + s->m - 1] : s->positive_only ? 0.0F : -INFINITY;
    s->limit_ids[k] = full ? s->ids[k * s->m + s->m - 1] : -1;
}

/* Sorts n candidates by insertion and drops repeated pairs; for ids that do not ascend.  Returns how many remain. */
static ptrdiff_t
sort_any(const sl_candidate *restrict in, ptrdiff_t n, float *restrict score, int64_t *restrict id)
{
    ptrdiff_t used = 0;

    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t at = used;
        while (at > 0 && before(in[i].score, in[i].id, score[at - 1], id[at - 1])) {
            at--;
        }
        if (at > 0 && score[at - 1] == in[i].score && id[at - 1] == in[i].id) {
            continue;
        }
        memmove(score + at + 1, score + at, (size_t)(used - at) * sizeof *score);
        memmove(id + at + 1, id + at, (size_t)(used - at) * sizeof *id);
        score[at] = in[i].score;
        id[at] = in[i].id;
        used++;
    }
    return used;
}

/* The candidates in order; the usual case, ids ascending, needs no comparison of ids.  Returns how many remain. */
static ptrdiff_t
sort_candidates(const sl_candidate *restrict in, ptrdiff_t n, float *restrict score, int64_t *restrict id)
{
    float unsorted[SL_TOPM_PENDING];
    int32_t rank[SL_TOPM_PENDING];
    int ascending = 1;

    for (ptrdiff_t i = 0; i < n; i++) {
        unsorted[i] = in[i].score;
        ascending &= i == 0 || in[i - 1].id < in[i].id;
    }
    if (!ascending) {
        return sort_any(in, n, score, id);
    }
    sl_tier_get()->topm_ranks(unsorted, n, rank);
    for (ptrdiff_t i = 0; i < n; i++) {
        score[rank[i]] = in[i].score;
        id[rank[i]] = in[i].id;
    }
    return n;
}

/* First index in [low, n) of the list whose entry is not before (score, id). */
static inline ptrdiff_t
position(const float *restrict scores, const int64_t *restrict ids, ptrdiff_t low, ptrdiff_t n, float score, int64_t id)
{
    for (ptrdiff_t size = n - low; size > 0;) { /* a conditional move instead of a branch that cannot be predicted */
        const ptrdiff_t half = (size + 1) / 2;
        low = scores[low + half - 1] > score ? low + half : low;
        size -= half;
    }
    while (low < n && scores[low] == score && ids[low] < id) {
        low++;
    }
    return low;
}

/* Merges the pending candidates of component k into its list. */
static void
flush_one(const sl_topm *s, ptrdiff_t k)
{
    float *restrict list = s->scores + k * s->m;
    int64_t *restrict list_ids = s->ids + k * s->m;
    const ptrdiff_t count = (ptrdiff_t)s->counts[k];
    float score[SL_TOPM_PENDING];
    int64_t id[SL_TOPM_PENDING];
    ptrdiff_t at[SL_TOPM_PENDING]; /* where in the old list each goes */
    ptrdiff_t used = 0, low = 0, end;
    const ptrdiff_t n = sort_candidates(s->pending + k * SL_TOPM_PENDING, s->pending_counts[k], score, id);

    for (ptrdiff_t i = 0; i < n; i++) {
        low = position(list, list_ids, low, count, score[i], id[i]);
        if (low + used >= s->m) {
            break;
        }
        if (low < count && list[low] == score[i] && list_ids[low] == id[i]) {
            continue;
        }
        score[used] = score[i];
        id[used] = id[i];
        at[used] = low;
        used++;
    }
    end = (count + used < s->m ? count + used : s->m) - used; /* old entries that stay */
    s->counts[k] = end + used;
    for (ptrdiff_t i = used - 1; i >= 0; i--) {
        for (ptrdiff_t j = end - 1; j >= at[i]; j--) {
            list[j + i + 1] = list[j];
            list_ids[j + i + 1] = list_ids[j];
        }
        list[at[i] + i] = score[i];
        list_ids[at[i] + i] = id[i];
        end = at[i];
    }
    s->pending_counts[k] = 0;
    set_limit(s, k);
}

/* Offers a value that passed the first compare; returns 1 if the limit of component k may have changed. */
static inline int
offer(const sl_topm *s, ptrdiff_t k, float score, int64_t id)
{
    sl_candidate *candidate;

    if (score != score) {
        s->nan_counts[k]++;
        return 0;
    }
    if (!before(score, id, s->limits[k], s->limit_ids[k])) {
        return 0;
    }
    candidate = s->pending + k * SL_TOPM_PENDING + s->pending_counts[k];
    candidate->score = score;
    candidate->id = id;
    if (++s->pending_counts[k] < SL_TOPM_PENDING) {
        return 0;
    }
    flush_one(s, k);
    return 1;
}

/* Components k0 to k0 + n of one batch. */
static void
update_tile(const sl_topm *s, ptrdiff_t k0, ptrdiff_t n, const float *restrict values, const int64_t *restrict ids,
            ptrdiff_t B, int64_t smallest_id)
{
    const sl_tier *tier = sl_tier_get();
    float limits[TILE];
    int32_t hits[TILE];

    for (ptrdiff_t j = 0; j < n; j++) {
        limits[j] = reject_up_to(s, k0 + j, smallest_id);
    }
    for (ptrdiff_t i = 0; i < B; i++) {
        const float *row = values + i * s->K + k0;
        const ptrdiff_t found = tier->topm_scan(row, limits, n, hits);
        for (ptrdiff_t h = 0; h < found; h++) {
            const ptrdiff_t j = hits[h];
            if (offer(s, k0 + j, row[j], ids[i])) {
                limits[j] = reject_up_to(s, k0 + j, smallest_id);
            }
        }
    }
}

/* Components per block of work, so that every thread gets some. */
static ptrdiff_t
tile_size(ptrdiff_t K, int threads)
{
    const ptrdiff_t share = (K / threads + 63) / 64 * 64;

    return share < 64 ? 64 : share > TILE ? TILE : share;
}

static int
valid(const sl_topm *s, int n_threads)
{
    ptrdiff_t size;
    int bad = 0;

    if (s->K < 0 || s->m < 1 || n_threads < 1 || sl_mul(s->K, s->m, &size) < 0 ||
        sl_mul(s->K, SL_TOPM_PENDING, &size) < 0) {
        return 0;
    }
    for (ptrdiff_t k = 0; k < s->K; k++) {
        bad |= s->counts[k] < 0 || s->counts[k] > s->m || s->pending_counts[k] < 0 ||
               s->pending_counts[k] >= SL_TOPM_PENDING;
    }
    return !bad;
}

sl_status
sl_topm_init(const sl_topm *state)
{
    if (state->K < 0 || state->m < 1) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = 0; i < state->K * state->m; i++) {
        state->scores[i] = -INFINITY;
        state->ids[i] = -1;
    }
    for (ptrdiff_t k = 0; k < state->K; k++) {
        state->counts[k] = state->nan_counts[k] = 0;
        state->pending_counts[k] = 0;
        set_limit(state, k);
    }
    return SL_OK;
}

sl_status
sl_topm_update_f32(const sl_topm *state, const float *values, const int64_t *ids, ptrdiff_t B, int n_threads)
{
    int64_t smallest_id = INT64_MAX;
    ptrdiff_t size, tile;
    int threads, n_tiles, t;

    if (B < 0 || !valid(state, n_threads) || sl_mul(B, state->K, &size) < 0) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = 0; i < B; i++) {
        smallest_id = ids[i] < smallest_id ? ids[i] : smallest_id;
    }
    if (smallest_id < 0) {
        return SL_ERR_ARG;
    }
    threads = size < SERIAL ? 1 : sl_threads(n_threads);
    tile = tile_size(state->K, threads);
    n_tiles = (int)((state->K + tile - 1) / tile);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (t = 0; t < n_tiles; t++) {
        const ptrdiff_t k0 = t * tile;
        update_tile(state, k0, state->K - k0 < tile ? state->K - k0 : tile, values, ids, B, smallest_id);
    }
    return SL_OK;
}

sl_status
sl_topm_flush(const sl_topm *state, int n_threads)
{
    int threads;
    ptrdiff_t k;

    if (!valid(state, n_threads)) {
        return SL_ERR_ARG;
    }
    threads = state->K < SERIAL_FLUSH ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (k = 0; k < state->K; k++) {
        if (state->pending_counts[k] > 0) {
            flush_one(state, k);
        }
    }
    return SL_OK;
}

sl_status
sl_topm_merge_f32(const sl_topm *state, const float *scores, const int64_t *ids, ptrdiff_t n, int n_threads)
{
    ptrdiff_t size, k;
    int threads;

    if (n < 0 || !valid(state, n_threads) || sl_mul(n, state->K, &size) < 0) {
        return SL_ERR_ARG;
    }
    threads = state->K < SERIAL_FLUSH ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (k = 0; k < state->K; k++) {
        for (ptrdiff_t j = k * n; j < (k + 1) * n; j++) {
            if (ids[j] >= 0 && scores[j] == scores[j]) {
                offer(state, k, scores[j], ids[j]);
            }
        }
        if (state->pending_counts[k] > 0) {
            flush_one(state, k);
        }
    }
    return SL_OK;
}

/* Puts x into a descending list of c. */
static inline void
insert(float *restrict list, ptrdiff_t c, float x)
{
    ptrdiff_t at = c - 1;

    for (; at > 0 && x > list[at - 1]; at--) {
        list[at] = list[at - 1];
    }
    list[at] = x;
}

sl_status
sl_class_top_f32(float *best, ptrdiff_t Y, ptrdiff_t K, ptrdiff_t c, const float *values, const int64_t *targets,
                 ptrdiff_t B, int positive_only, int n_threads)
{
    const float floor = positive_only ? 0.0F : -INFINITY;
    ptrdiff_t size, tile;
    int threads, n_tiles, t;

    if (Y < 0 || K < 0 || c < 1 || B < 0 || n_threads < 1 || sl_mul(Y, K, &size) < 0 || sl_mul(size, c, &size) < 0 ||
        sl_mul(B, K, &size) < 0) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = 0; i < B; i++) {
        if (targets[i] < -1 || targets[i] >= Y) {
            return SL_ERR_ARG;
        }
    }
    threads = size < SERIAL ? 1 : sl_threads(n_threads);
    tile = tile_size(K, threads);
    n_tiles = (int)((K + tile - 1) / tile);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (t = 0; t < n_tiles; t++) {
        const ptrdiff_t begin = t * tile, end = K - begin < tile ? K : begin + tile;
        for (ptrdiff_t i = 0; i < B; i++) {
            if (targets[i] < 0) {
                continue;
            }
            for (ptrdiff_t k = begin; k < end; k++) {
                const float x = values[i * K + k];
                float *list = best + (targets[i] * K + k) * c;
                if (x > floor && x > list[c - 1]) { /* false for NaN */
                    insert(list, c, x);
                }
            }
        }
    }
    return SL_OK;
}
