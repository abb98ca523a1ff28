/* Contract of sl_topm.h: order, ties, NaN, batches, merges, refusals. */
#include "check.h"

#include "sl/sl_topm.h"

enum { N = 700, K = 70 };

static float values[N * K];
static int64_t ids[N];

static int
make(sl_topm *s, ptrdiff_t k, ptrdiff_t m, int positive_only)
{
    *s = (sl_topm){
        .K = k,
        .m = m,
        .positive_only = positive_only,
        .scores = sl_alloc(k * m, sizeof(float)),
        .ids = sl_alloc(k * m, sizeof(int64_t)),
        .counts = sl_alloc(k, sizeof(int64_t)),
        .nan_counts = sl_alloc(k, sizeof(int64_t)),
        .limits = sl_alloc(k, sizeof(float)),
        .limit_ids = sl_alloc(k, sizeof(int64_t)),
        .pending = sl_alloc(k * SL_TOPM_PENDING, sizeof(sl_candidate)),
        .pending_counts = sl_alloc(k, sizeof(int32_t)),
    };
    return sl_topm_init(s) == SL_OK;
}

static void
drop(sl_topm *s)
{
    sl_free(s->scores);
    sl_free(s->ids);
    sl_free(s->counts);
    sl_free(s->nan_counts);
    sl_free(s->limits);
    sl_free(s->limit_ids);
    sl_free(s->pending);
    sl_free(s->pending_counts);
}

/* How many usable values of column k come before (score, id); the rank in the full order. */
static ptrdiff_t
rank_of(ptrdiff_t k, float score, int64_t id, float floor)
{
    ptrdiff_t rank = 0;

    for (ptrdiff_t i = 0; i < N; i++) {
        const float x = values[i * K + k];
        rank += x > floor && (x > score || (x == score && ids[i] < id));
    }
    return rank;
}

static void
check_column(const sl_topm *s, ptrdiff_t k)
{
    const float floor = s->positive_only ? 0.0F : -INFINITY;
    ptrdiff_t usable = 0, nan = 0;

    for (ptrdiff_t i = 0; i < N; i++) {
        usable += values[i * K + k] > floor;
        nan += values[i * K + k] != values[i * K + k];
    }
    CHECK(s->counts[k] == (usable < s->m ? usable : s->m));
    CHECK(s->nan_counts[k] == nan);
    for (ptrdiff_t j = 0; j < s->m; j++) {
        const float score = s->scores[k * s->m + j];
        const int64_t id = s->ids[k * s->m + j];
        if (j < s->counts[k]) {
            CHECK(id >= 0 && rank_of(k, score, id, floor) == j);
        } else {
            CHECK(id == -1 && score == -INFINITY);
        }
    }
}

/* Values with ties, NaN and infinities; ids in a scattered order. */
static void
fill(int levels)
{
    check_fill(values, N * K, 7);
    for (ptrdiff_t i = 0; i < N * K; i++) {
        const uint32_t dice = (uint32_t)(i * 2654435761U) >> 22;
        if (levels > 0) {
            values[i] = (float)(int)(values[i] * (float)levels);
        }
        if (dice < 30) {
            values[i] = dice < 10 ? NAN : dice < 20 ? -INFINITY : INFINITY;
        }
    }
    for (ptrdiff_t i = 0; i < N; i++) {
        ids[i] = (i * 271) % N;
    }
}

static void
stream(const sl_topm *s, ptrdiff_t step, int n_threads)
{
    for (ptrdiff_t i = 0; i < N; i += step) {
        CHECK(sl_topm_update_f32(s, values + i * K, ids + i, N - i < step ? N - i : step, n_threads) == SL_OK);
    }
    CHECK(sl_topm_flush(s, n_threads) == SL_OK);
}

static void
equals_ranking(ptrdiff_t m, int levels, int positive_only, ptrdiff_t step)
{
    sl_topm s;

    fill(levels);
    CHECK(make(&s, K, m, positive_only));
    stream(&s, step, 1);
    for (ptrdiff_t k = 0; k < K; k++) {
        check_column(&s, k);
    }
    drop(&s);
}

static void
merges_and_threads(void)
{
    sl_topm whole, half[2], merged;

    fill(40);
    CHECK(make(&whole, K, 90, 0) && make(&half[0], K, 90, 0) && make(&half[1], K, 90, 0) && make(&merged, K, 90, 0));
    stream(&whole, 33, 3);
    for (int h = 0; h < 2; h++) {
        CHECK(sl_topm_update_f32(&half[h], values + h * (N / 2) * K, ids + h * (N / 2), N / 2, 1) == SL_OK);
        CHECK(sl_topm_flush(&half[h], 2) == SL_OK);
    }
    for (int h = 1; h >= 0; h--) {
        CHECK(sl_topm_merge_f32(&merged, half[h].scores, half[h].ids, 90, 2) == SL_OK);
    }
    CHECK_SAME(whole.scores, merged.scores, sizeof(float) * K * 90);
    CHECK_SAME(whole.ids, merged.ids, sizeof(int64_t) * K * 90);
    CHECK_SAME(whole.counts, merged.counts, sizeof(int64_t) * K);
    drop(&whole);
    drop(&half[0]);
    drop(&half[1]);
    drop(&merged);
}

static void
classes(void)
{
    const float x[] = {1, -1, 3, 2, NAN, -2, 5, 0, 2, -INFINITY};
    const int64_t y[] = {0, 0, 1, 0, -1};
    const int64_t outside[] = {0, 0, 2, 0, -1};
    const float expected[] = {5, 3, 2, 0, -INFINITY, -INFINITY, -2, -INFINITY};
    float best[8];

    for (int i = 0; i < 8; i++) {
        best[i] = -INFINITY;
    }
    CHECK(sl_class_top_f32(best, 2, 2, 2, x, outside, 5, 0, 1) == SL_ERR_ARG);
    CHECK(sl_class_top_f32(best, 2, 2, 0, x, y, 5, 0, 1) == SL_ERR_ARG);
    CHECK(sl_class_top_f32(best, 2, 2, 2, x, y, 5, 0, 0) == SL_ERR_ARG);
    CHECK(best[0] == -INFINITY);
    CHECK(sl_class_top_f32(best, 2, 2, 2, x, y, 5, 0, 2) == SL_OK);
    CHECK_SAME(best, expected, sizeof best);
}

static void
refusals(void)
{
    const int64_t negative[] = {3, -1};
    sl_topm s, bad;

    fill(0);
    CHECK(make(&s, K, 5, 0));
    CHECK(sl_topm_update_f32(&s, values, negative, 2, 1) == SL_ERR_ARG);
    CHECK(sl_topm_update_f32(&s, values, ids, -1, 1) == SL_ERR_ARG);
    CHECK(sl_topm_update_f32(&s, values, ids, 2, 0) == SL_ERR_ARG);
    CHECK(sl_topm_merge_f32(&s, s.scores, s.ids, -1, 1) == SL_ERR_ARG);
    CHECK(s.pending_counts[0] == 0 && s.counts[0] == 0 && s.nan_counts[0] == 0);
    s.counts[3] = 6;
    CHECK(sl_topm_flush(&s, 1) == SL_ERR_ARG);
    s.counts[3] = 0;
    s.pending_counts[K - 1] = SL_TOPM_PENDING;
    CHECK(sl_topm_update_f32(&s, values, ids, 2, 1) == SL_ERR_ARG);
    s.pending_counts[K - 1] = 0;
    bad = s;
    bad.m = 0;
    CHECK(sl_topm_init(&bad) == SL_ERR_ARG);
    bad.m = PTRDIFF_MAX;
    CHECK(sl_topm_flush(&bad, 1) == SL_ERR_ARG);
    bad = s;
    bad.K = 0;
    CHECK(sl_topm_update_f32(&bad, values, ids, 2, 1) == SL_OK);
    drop(&s);
}

int
main(void)
{
    const ptrdiff_t ms[] = {1, 5, 64, 100, 300, N + 5};

    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        equals_ranking(ms[i], 0, 0, 64);
        equals_ranking(ms[i], 3, (int)i % 2, 17);
    }
    equals_ranking(20, 50, 1, 1);
    merges_and_threads();
    classes();
    refusals();
    return CHECK_DONE();
}
