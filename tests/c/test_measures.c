/* The contracts of sl_measures.h, without Python; run plain, under sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_measures.h"

enum { N = 205, D = 5, P = 7, Q = 101, BINS = 64, K = 4 };

static float x[N * D], y[N * D];
static double a[N * P], b[N * Q], u[N * D];

static double
product(const float *v, ptrdiff_t i, ptrdiff_t j)
{
    double sum = 0.0;

    for (ptrdiff_t t = 0; t < D; t++) {
        sum += (double)v[i * D + t] * (double)v[j * D + t];
    }
    return sum;
}

static void
fill_all(void)
{
    check_fill(x, N * D, 1);
    check_fill(y, N * D, 2);
    for (int i = 0; i < N * D; i++) {
        u[i] = (double)x[i];
    }
    for (int i = 0; i < N * P; i++) {
        a[i] = (double)x[i % (N * D)] + 0.01 * i;
    }
    for (int i = 0; i < N * Q; i++) {
        b[i] = (double)y[i % (N * D)] - 0.001 * i;
    }
}

static void
test_cross(void)
{
    static double out[P * Q], again[P * Q], square[Q * Q];

    CHECK(sl_cross_f64(a, b, N, P, Q, 0, P, out, 1) == SL_OK);
    CHECK(sl_cross_f64(a, b, N, P, Q, 0, P, again, 3) == SL_OK);
    CHECK_SAME(out, again, sizeof out);
    CHECK(sl_cross_f64(b, b, N, Q, Q, 0, SL_CROSS_STEP, square, 2) == SL_OK);
    CHECK(sl_cross_f64(b, b, N, Q, Q, SL_CROSS_STEP, Q, square, 2) == SL_OK);
    for (int i = 0; i < P; i++) {
        for (int j = 0; j < Q; j++) {
            double sum = 0.0, size = 1.0;
            for (int t = 0; t < N; t++) {
                sum += a[t * P + i] * b[t * Q + j];
                size += fabs(a[t * P + i] * b[t * Q + j]);
            }
            CHECK_NEAR(out[i * Q + j], sum, 1e-14 * size);
            CHECK(square[i * Q + j] == square[j * Q + i]);
        }
    }
    CHECK(sl_cross_f64(a, b, N, P, Q, 1, P, out, 1) == SL_ERR_ARG);
    CHECK(sl_cross_f64(a, b, N, P, Q, 0, P + 1, out, 1) == SL_ERR_ARG);
    CHECK(sl_cross_f64(a, b, N, P, Q, 0, P, out, 0) == SL_ERR_ARG);
    CHECK(sl_cross_f64(a, b, 0, P, Q, 0, P, out, 1) == SL_OK && out[0] == 0.0);
    sl_alloc_fail_after(1);
    CHECK(sl_cross_f64(a, b, N, P, Q, 0, P, out, 1) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
}

static void
test_counts_and_scores(const sl_gram *gx, const sl_gram *gy)
{
    const sl_gram_grid grid = {0, -5.0, 5.0, BINS}, bad = {0, 1.0, 0.0, BINS};
    int64_t count[BINS] = {0}, parts[BINS] = {0}, total = 0;
    float score[BINS];
    double sum = 0.0, twice = 0.0, expected = 0.0;

    for (int t = 0; t < BINS; t++) {
        score[t] = 0.25F * (float)t - 3.0F;
    }
    CHECK(sl_gram_blocks(N) == 2);
    CHECK(sl_gram_count(gx, &grid, 0, 2, count, 1) == SL_OK);
    CHECK(sl_gram_count(gx, &grid, 1, 2, parts, 3) == SL_OK && sl_gram_count(gx, &grid, 0, 1, parts, 2) == SL_OK);
    CHECK_SAME(count, parts, sizeof count);
    CHECK(sl_gram_score(gx, &grid, score, gx, &grid, score, 0, 2, &sum, 1) == SL_OK);
    CHECK(sl_gram_score(gx, &grid, score, gx, &grid, score, 0, 1, &twice, 8) == SL_OK);
    CHECK(sl_gram_score(gx, &grid, score, gx, &grid, score, 1, 2, &twice, 8) == SL_OK);
    CHECK_SAME(&sum, &twice, sizeof sum);
    for (int t = 0; t < BINS; t++) {
        total += count[t];
        expected += (double)count[t] * (double)(score[t] * score[t]);
    }
    CHECK(total == N * (N - 1) / 2);
    CHECK_NEAR(sum, expected, 1e-9 * expected);
    CHECK(sl_gram_count(gx, &bad, 0, 2, count, 1) == SL_ERR_ARG);
    CHECK(sl_gram_count(gx, &grid, 0, 3, count, 1) == SL_ERR_ARG);
    CHECK(sl_gram_score(gx, &grid, score, gy, &bad, score, 0, 2, &sum, 1) == SL_ERR_ARG);
    for (long after = 1; after <= 5; after++) {
        sl_alloc_fail_after(after);
        CHECK(sl_gram_count(gx, &grid, 0, 2, count, 1) == SL_ERR_NOMEM);
        sl_alloc_fail_after(-1);
    }
}

static void
test_gauss(const sl_gram *gx, const sl_gram *gy)
{
    double sums[3] = {0.0}, again[3] = {0.0}, expected[3] = {0.0}, row = 0.0;
    int64_t rows[2][N] = {{0}}, other[2][N] = {{0}};

    CHECK(sl_gram_gauss(gx, 0.5, gy, 0.25, 0, 2, sums, rows[0], rows[1], 1) == SL_OK);
    CHECK(sl_gram_gauss(gx, 0.5, gy, 0.25, 0, 2, again, other[0], other[1], 8) == SL_OK);
    CHECK_SAME(sums, again, sizeof sums);
    CHECK_SAME(rows, other, sizeof rows);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            const double k = exp(-0.5 * (product(x, i, i) + product(x, j, j) - 2.0 * product(x, i, j)));
            const double l = exp(-0.25 * (product(y, i, i) + product(y, j, j) - 2.0 * product(y, i, j)));
            row += i == 3 && j != 3 ? l : 0.0;
            if (i < j) {
                expected[0] += k * l;
                expected[1] += k * k;
                expected[2] += l * l;
            }
        }
    }
    for (int t = 0; t < 3; t++) {
        CHECK_NEAR(sums[t], expected[t], 1e-6 * expected[t]);
    }
    CHECK_NEAR((double)rows[1][3] / SL_GRAM_UNIT, row, 1e-6 * row);
    CHECK(sl_gram_gauss(gx, -1.0, gy, 0.25, 0, 2, sums, rows[0], rows[1], 1) == SL_ERR_ARG);
}

static sl_status
near_all(const sl_gram *g, int threads, int32_t *index, double *value)
{
    sl_near *near = NULL;
    int64_t searched = 0;
    sl_status status = sl_near_new(g, K, threads, &near);

    if (status == SL_OK && (sl_near_step(near, 0, 2) != SL_OK || sl_near_step(near, 0, 3) != SL_ERR_ARG ||
                            sl_near_finish(near, u, 0, 2, index, value, &searched) != SL_OK)) {
        status = SL_ERR_ARG;
    }
    sl_near_free(near);
    return status;
}

static void
test_near(const sl_gram *gx)
{
    static int32_t index[N * K], other[N * K];
    static double value[N * K], again[N * K];
    sl_near *near = NULL;

    CHECK(near_all(gx, 1, index, value) == SL_OK && near_all(gx, 3, other, again) == SL_OK);
    CHECK_SAME(index, other, sizeof index);
    CHECK_SAME(value, again, sizeof value);
    for (int i = 0; i < N; i++) {
        int above = 0;
        for (int j = 0; j < N; j++) {
            above += j != i && product(x, i, j) > value[i * K + K - 1] + 1e-12;
        }
        CHECK(above == K - 1);
        CHECK_NEAR(value[i * K], product(x, i, index[i * K]), 1e-12);
    }
    CHECK(sl_near_new(gx, N, 1, &near) == SL_ERR_ARG && near == NULL);
    CHECK(sl_near_new(gx, 0, 1, &near) == SL_ERR_ARG);
    for (long after = 1; after <= 5; after++) {
        sl_alloc_fail_after(after);
        CHECK(sl_near_new(gx, K, 1, &near) == SL_ERR_NOMEM && near == NULL);
        sl_alloc_fail_after(-1);
    }
}

static void
test_making(void)
{
    sl_gram *g = NULL;
    float bad[4] = {0.0F, NAN, 1.0F, 2.0F};

    CHECK(sl_gram_new(bad, 2, 2, 1, &g) == SL_ERR_NUMERIC && g == NULL);
    CHECK(sl_gram_new(x, 1, D, 1, &g) == SL_ERR_ARG && sl_gram_new(x, N, 0, 1, &g) == SL_ERR_ARG);
    for (long after = 1; after <= 4; after++) {
        sl_alloc_fail_after(after);
        CHECK(sl_gram_new(x, N, D, 1, &g) == SL_ERR_NOMEM && g == NULL);
        sl_alloc_fail_after(-1);
    }
}

int
main(void)
{
    sl_gram *gx = NULL, *gy = NULL;

    fill_all();
    CHECK(sl_gram_new(x, N, D, 2, &gx) == SL_OK && sl_gram_new(y, N, D, 1, &gy) == SL_OK);
    if (gx != NULL && gy != NULL) {
        test_cross();
        test_counts_and_scores(gx, gy);
        test_gauss(gx, gy);
        test_near(gx);
        test_making();
    }
    sl_gram_free(gy);
    sl_gram_free(gx);
    return CHECK_DONE();
}
