/* Streaming selection.  Contract: sl_topm.h.
 *
 * A value is compared once with its component's limit (vectorised, per instruction set).  What passes is appended to a short list of candidates:
 * one store, no read of the component's list.  Only when that is (nearly) full does a selection decide which stay, so that lists of hundreds of
 * bytes per component are touched once per SL_TOPM_PENDING candidates, not once per candidate; they are sorted when results are read. */
#include "sl/sl_topm.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_tier.h"

enum {
    RANKED = 128,        /* lists up to this length are sorted by ranks */
    TILE = 1024,         /* components per block of work: limits and hits of a block stay in the first-level cache */
    SERIAL = 1 << 19,    /* values below which threads cost more than they bring */
    SERIAL_FLUSH = 1024, /* components, likewise */
};
_Static_assert(RANKED % 16 == 0, "ranks are computed on whole vectors");
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

/* Index of the last entry in the order of a list of n >= 1 entries. */
static ptrdiff_t
worst(const float *restrict scores, const int64_t *restrict ids, ptrdiff_t n)
{
    ptrdiff_t at = -1;
    float least, largest;

    sl_tier_get()->topm_range(scores, n, &least, &largest);
    for (ptrdiff_t i = 0; i < n; i++) {
        if (scores[i] == least && (at < 0 || ids[i] > ids[at])) {
            at = i;
        }
    }
    return at;
}

static void
set_limit(const sl_topm *s, ptrdiff_t k)
{
    if (s->counts[k] < s->m) {
        s->limits[k] = s->positive_only ? 0.0F : -INFINITY;
        s->limit_ids[k] = -1;
    } else {
        const ptrdiff_t last = k * s->m + worst(s->scores + k * s->m, s->ids + k * s->m, s->m);
        s->limits[k] = s->scores[last];
        s->limit_ids[k] = s->ids[last];
    }
}

/* Puts the best m of a full list (m) and n candidates into the list, in no order.  `fresh` are the candidates' scores. */
static void
select_best(float *restrict list, int64_t *restrict ids, ptrdiff_t m, const sl_candidate *restrict candidates,
            const float *restrict fresh, ptrdiff_t n, float below)
{
    float pivot;
    ptrdiff_t free_slot = 0;

    if (sl_tier_get()->topm_pivot(list, m, fresh, n, below, &pivot)) {
        for (ptrdiff_t i = 0; i < n; i++) {
            if (fresh[i] > pivot) { /* as many as the list has at or below it */
                while (list[free_slot] > pivot) {
                    free_slot++;
                }
                list[free_slot] = fresh[i];
                ids[free_slot++] = candidates[i].id;
            }
        }
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) { /* equal scores at the limit: one by one */
        const ptrdiff_t last = worst(list, ids, m);
        if (before(fresh[i], candidates[i].id, list[last], ids[last])) {
            list[last] = fresh[i];
            ids[last] = candidates[i].id;
        }
    }
}

/* Merges the pending candidates of component k into its list. */
static void
take_pending(const sl_topm *s, ptrdiff_t k)
{
    float *restrict list = s->scores + k * s->m;
    int64_t *restrict ids = s->ids + k * s->m;
    const sl_candidate *restrict candidates = s->pending + k * SL_TOPM_PENDING;
    float fresh[SL_TOPM_PENDING];
    ptrdiff_t n = s->pending_counts[k], count = (ptrdiff_t)s->counts[k];

    for (; count < s->m && n > 0; count++, n--, candidates++) {
        list[count] = candidates->score;
        ids[count] = candidates->id;
    }
    s->counts[k] = count;
    if (n > 0) {
        for (ptrdiff_t i = 0; i < n; i++) {
            fresh[i] = candidates[i].score;
        }
        select_best(list, ids, s->m, candidates, fresh, n, next_below(s->limits[k]));
    }
    s->pending_counts[k] = 0;
    set_limit(s, k);
}

static int
is_sorted(const float *restrict scores, const int64_t *restrict ids, ptrdiff_t n)
{
    for (ptrdiff_t i = 1; i < n; i++) {
        if (!before(scores[i - 1], ids[i - 1], scores[i], ids[i])) {
            return 0;
        }
    }
    return 1;
}

/* Shell sort of a list from distance `gap` on; with gap = 1 an insertion sort, for what is nearly in order. */
static void
sort_from_gap(float *restrict scores, int64_t *restrict ids, ptrdiff_t n, ptrdiff_t gap)
{
    for (; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11) {
        for (ptrdiff_t i = gap; i < n; i++) {
            const float score = scores[i];
            const int64_t id = ids[i];
            ptrdiff_t at = i;
            for (; at >= gap && before(score, id, scores[at - gap], ids[at - gap]); at -= gap) {
                scores[at] = scores[at - gap];
                ids[at] = ids[at - gap];
            }
            scores[at] = score;
            ids[at] = id;
        }
    }
}

/* Brings the list of component k into order. */
static void
sort_list(const sl_topm *s, ptrdiff_t k)
{
    float *restrict scores = s->scores + k * s->m;
    int64_t *restrict ids = s->ids + k * s->m;
    const ptrdiff_t n = (ptrdiff_t)s->counts[k];
    float old_scores[RANKED];
    int64_t old_ids[RANKED];
    int32_t rank[RANKED];

    if (is_sorted(scores, ids, n)) {
        return;
    }
    if (n > RANKED) {
        sort_from_gap(scores, ids, n, n / 2);
        return;
    }
    memcpy(old_scores, scores, (size_t)n * sizeof *scores);
    memcpy(old_ids, ids, (size_t)n * sizeof *ids);
    sl_tier_get()->topm_ranks(old_scores, n, rank);
    for (ptrdiff_t i = 0; i < n; i++) {
        scores[rank[i]] = old_scores[i];
        ids[rank[i]] = old_ids[i];
    }
    sort_from_gap(scores, ids, n, 1); /* equal scores by id */
}

static void
finish_one(const sl_topm *s, ptrdiff_t k)
{
    if (s->pending_counts[k] > 0) {
        take_pending(s, k);
    }
    sort_list(s, k);
}

/* Candidates to collect before they are merged: not many more than the list is long, or the limit lags behind. */
static inline int32_t
capacity(const sl_topm *s)
{
    return s->m < 16 ? 16 : s->m < SL_TOPM_PENDING ? (int32_t)s->m : SL_TOPM_PENDING;
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
    if (++s->pending_counts[k] < capacity(s)) {
        return 0;
    }
    take_pending(s, k);
    return 1;
}

static inline void
fetch(const void *data, ptrdiff_t bytes)
{
    for (ptrdiff_t offset = 0; offset < bytes; offset += 64) {
        __builtin_prefetch((const char *)data + offset, 1);
    }
}

/* Merges the components of k0 to k0 + n with at least `at_least` candidates, at the end of a batch.  Lists of many components do not fit the cache, so the next one's is
 * fetched while one is merged; without that, most of the time goes into waiting. */
static void
flush_tile(const sl_topm *s, ptrdiff_t k0, ptrdiff_t n, int32_t at_least)
{
    int32_t full[TILE];
    ptrdiff_t found = 0;

    for (ptrdiff_t j = 0; j < n; j++) {
        full[found] = (int32_t)j;
        found += s->pending_counts[k0 + j] >= at_least;
    }
    for (ptrdiff_t i = 0; i < found; i++) {
        if (i + 1 < found) {
            const ptrdiff_t k = k0 + full[i + 1];
            fetch(s->scores + k * s->m, s->counts[k] * (ptrdiff_t)sizeof *s->scores);
            fetch(s->ids + k * s->m, s->counts[k] * (ptrdiff_t)sizeof *s->ids);
            fetch(s->pending + k * SL_TOPM_PENDING, s->pending_counts[k] * (ptrdiff_t)sizeof *s->pending);
        }
        take_pending(s, k0 + full[i]);
    }
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
    flush_tile(s, k0, n, capacity(s) * 3 / 4);
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
        finish_one(state, k);
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
        finish_one(state, k);
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
