/* The contract of sl_bootstrap.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_bootstrap.h"

enum { K = 7, M = 11, D = 19, P = 2, V = 1, S = 2 + P + V };

static float table[K * M * D], targets[3 * D];
static int32_t clusters[K * M];
static int64_t ids[K * M], target_ids[K * P];
static double values[K * V * M], out[3][K * S * SL_BOOTSTRAP_FIELDS], wins[3][K * P];

static void
fill(void)
{
    uint32_t state = 1;

    for (ptrdiff_t i = 0; i < K * M * D + 3 * D; i++) {
        state = state * 1664525U + 1013904223U;
        const float x = (float)(state >> 8) / 16777216.0F - 0.3F;
        if (i < K * M * D) {
            table[i] = x;
        } else {
            targets[i - K * M * D] = x;
        }
    }
    for (ptrdiff_t i = 0; i < K * M; i++) {
        ids[i] = i;
        clusters[i] = (int32_t)(i % 2);
        values[i] = (double)i;
    }
    for (ptrdiff_t i = 0; i < K * P; i++) {
        target_ids[i] = i % 4 - 1;
    }
}

int
main(void)
{
    sl_examples x = {.table = table, .rows = K * M, .d = D, .ids = ids, .K = K, .m = M};
    sl_bootstrap_scores s = {
        .clusters = clusters, .targets = targets, .target_ids = target_ids, .T = 3, .P = P, .values = values, .V = V};
    sl_bootstrap_options o = {.resamples = 40, .steps = 5, .level = 0.9, .seed = 3};

    fill();
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[0], wins[0], 1) == SL_OK);
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[1], wins[1], 3) == SL_OK);
    CHECK(memcmp(out[0], out[1], sizeof out[0]) == 0 && memcmp(wins[0], wins[1], sizeof wins[0]) == 0);
    CHECK_NEAR(out[0][(2 + P) * SL_BOOTSTRAP_FIELDS], 5.0, 1e-14);      /* the mean of 0 .. 10 */
    CHECK(isnan(out[0][2 * SL_BOOTSTRAP_FIELDS]) && isnan(wins[0][0])); /* target -1 */
    for (ptrdiff_t i = 0; i < K * S; i++) {
        const double *f = out[0] + i * SL_BOOTSTRAP_FIELDS;
        CHECK(isnan(f[0]) || (f[1] <= f[2] && f[4] >= 0.0));
    }
    /* components in two calls */
    x.K = 4;
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[2], wins[2], 1) == SL_OK);
    x.K = K - 4;
    x.ids += 4 * M;
    s.clusters += 4 * M;
    s.target_ids += 4 * P;
    s.values += 4 * V * M;
    o.first = 4;
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[2] + 4 * S * SL_BOOTSTRAP_FIELDS, wins[2] + 4 * P, 1) == SL_OK);
    CHECK(memcmp(out[0], out[2], sizeof out[0]) == 0 && memcmp(wins[0], wins[2], sizeof wins[0]) == 0);
    o.level = 1.0;
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[2], wins[2], 1) == SL_ERR_ARG);
    o.level = 0.9;
    o.resamples = 1;
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[2], wins[2], 1) == SL_ERR_ARG);
    o.resamples = 40;
    s.T = 1;
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[2], wins[2], 1) == SL_ERR_ARG);
    s.T = 3;
    x.m = 0;
    x.K = 0;
    CHECK(sl_bootstrap_f32(&x, &s, &o, out[2], wins[2], 1) == SL_OK);
    return CHECK_DONE();
}
