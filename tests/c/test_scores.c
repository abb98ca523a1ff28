/* The contract of sl_scores.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_scores.h"

enum { K = 23, M = 13, D = 37 };

static sl_examples
dense(const float *v, ptrdiff_t k, ptrdiff_t m, ptrdiff_t d)
{
    return (sl_examples){.table = v, .rows = k * m, .d = d, .K = k, .m = m};
}

static double
clarity_of(const float *v, ptrdiff_t m, ptrdiff_t d)
{
    const sl_examples x = dense(v, 1, m, d);
    double clarity = 7.0;
    int64_t used;

    CHECK(sl_clarity_f32(&x, NULL, &clarity, &used, 1) == SL_OK);
    return clarity;
}

static void
known_clarity(void)
{
    const float same[] = {1, 2, 3, 1, 2, 3, 2, 4, 6}, opposite[] = {1, 0, -1, 0}, one[] = {1, 2, 0, 0};
    const float tiny[] = {1e-30F, 0, 0, 2e-30F}, huge[] = {1e30F, 1e30F, 3e30F, 3e30F},
                bad[] = {1, 0, NAN, 1, 1, 0, INFINITY, 1};

    CHECK_NEAR(clarity_of(same, 3, 3), 1.0, 1e-14);
    CHECK_NEAR(clarity_of(opposite, 2, 2), -1.0, 1e-14);
    CHECK_NEAR(clarity_of(tiny, 2, 2), 0.0, 1e-14);
    CHECK_NEAR(clarity_of(huge, 2, 2), 1.0, 1e-14);
    CHECK_NEAR(clarity_of(bad, 4, 2), 1.0, 1e-14); /* NaN and inf rows are left out */
    CHECK(isnan(clarity_of(one, 2, 2)));           /* so is the row of length 0, and one is not enough */
}

static double
poly_of(const float *v, ptrdiff_t m, ptrdiff_t d, int exact, double *inertia)
{
    const sl_examples x = dense(v, 1, m, d);
    const sl_poly_options o = {.n_clusters = 2, .n_init = 10, .max_iter = 300, .exact = exact, .seed = 123};
    int32_t labels[32];
    double score = 7.0;

    CHECK(sl_polysemanticity_f32(&x, NULL, &o, &score, labels, inertia, 1) == SL_OK);
    return score;
}

static void
known_polysemanticity(void)
{
    const float right_angle[] = {1, 0, 1, 0, 0, 1, 0, 1, 1, 0}, opposite[] = {1, 1, -1, -1, 1, 1, -1, -1};
    const float same[] = {1, 2, 1, 2, 1, 2}, cancel[] = {1, 0, -1, 0};
    double inertia;

    for (int exact = 0; exact < 2; exact++) {
        CHECK_NEAR(poly_of(right_angle, 5, 2, exact, &inertia), 1.0, 1e-14);
        CHECK_NEAR(inertia, 0.0, 1e-14);
        CHECK_NEAR(poly_of(opposite, 4, 2, exact, &inertia), 2.0, 1e-14);
        CHECK(poly_of(same, 3, 2, exact, &inertia) == 0.0);
        CHECK(inertia == 0.0);
        CHECK(isnan(poly_of(cancel, 2, 2, exact, &inertia))); /* two single rows whose mean is 0 */
        CHECK(isnan(poly_of(cancel, 1, 2, exact, &inertia)));
    }
}

/* Dense rows and ids into the same table are the same thing. */
static void
gathered(void)
{
    float v[K * M * D], vectors[2][K * D];
    double clarity[2][K], score[2][K], inertia[K];
    int64_t ids[K * M], used[K], counts[K];
    int32_t labels[2][K * M];
    const sl_poly_options o = {.n_clusters = 3, .n_init = 2, .max_iter = 50, .seed = 1};

    check_fill(v, K * M * D, 1);
    for (int i = 0; i < K * M; i++) {
        ids[i] = i;
    }
    for (int k = 0; k < K; k++) {
        counts[k] = k % (M + 1);
    }
    for (int form = 0; form < 2; form++) {
        sl_examples x = dense(v, K, M, D);
        x.ids = form == 1 ? ids : NULL;
        x.counts = counts;
        CHECK(sl_clarity_f32(&x, NULL, clarity[form], used, 1 + 2 * form) == SL_OK);
        CHECK(sl_concept_vectors_f32(&x, NULL, 1, vectors[form], used, 1 + 2 * form) == SL_OK);
        CHECK(sl_polysemanticity_f32(&x, NULL, &o, score[form], labels[form], inertia, 1 + 2 * form) == SL_OK);
        CHECK(used[5] == 5);
    }
    CHECK_SAME(clarity[0], clarity[1], sizeof clarity[0]);
    CHECK_SAME(vectors[0], vectors[1], sizeof vectors[0]);
    CHECK_SAME(score[0], score[1], sizeof score[0]);
    CHECK_SAME(labels[0], labels[1], sizeof labels[0]);
}

static void
refused(void)
{
    const float v[] = {1, 0, 0, 1};
    const float minus[] = {1, -1};
    const int64_t many = 3, far[] = {0, 4}, low[] = {-2, 0};
    const int32_t big[] = {0, 2};
    sl_poly_options o = {.n_clusters = 2, .n_init = 1, .max_iter = 1};
    double score = 7.0, inertia = 7.0;
    int32_t labels[2] = {7, 7};
    int64_t used = 7;
    sl_examples x = dense(v, 1, 2, 2);

    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 0) == SL_ERR_ARG);
    CHECK(sl_clarity_f32(&x, minus, &score, &used, 1) == SL_ERR_ARG);
    CHECK(sl_polysemanticity_f32(&x, big, &o, &score, labels, &inertia, 1) == SL_ERR_ARG);
    o.n_clusters = 1;
    CHECK(sl_polysemanticity_f32(&x, NULL, &o, &score, labels, &inertia, 1) == SL_ERR_ARG);
    o = (sl_poly_options){.n_clusters = 3, .n_init = 1, .max_iter = 1, .exact = 1};
    CHECK(sl_polysemanticity_f32(&x, NULL, &o, &score, labels, &inertia, 1) == SL_ERR_ARG);
    o.n_clusters = 2;
    x.counts = &many;
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_ARG);
    x.counts = NULL;
    x.ids = far;
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_ARG);
    x.ids = low;
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_ARG);
    x = dense(v, 1, 2, 2);
    x.rows = 3;
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_ARG);
    x = dense(v, 1, 2, 2);
    x.d = -1;
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_ARG);
    x = dense(v, 1, 4, 2);
    x.K = PTRDIFF_MAX / 2;
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_OVERFLOW);
    CHECK(score == 7.0 && inertia == 7.0 && used == 7 && labels[0] == 7); /* a refused call writes nothing */
    x = dense(v, 0, 2, 2);
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_OK);
}

static void
out_of_memory(void)
{
    const float v[] = {1, 0, 0, 1};
    const sl_examples x = dense(v, 1, 2, 2);
    const sl_poly_options o = {.n_clusters = 2, .n_init = 1, .max_iter = 1};
    double score, inertia;
    int32_t labels[2];
    int64_t used;
    float vectors[2];

    sl_alloc_fail_after(1);
    CHECK(sl_clarity_f32(&x, NULL, &score, &used, 1) == SL_ERR_NOMEM);
    CHECK(sl_concept_vectors_f32(&x, NULL, 0, vectors, &used, 1) == SL_ERR_NOMEM);
    CHECK(sl_polysemanticity_f32(&x, NULL, &o, &score, labels, &inertia, 1) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
}

int
main(void)
{
    known_clarity();
    known_polysemanticity();
    gathered();
    refused();
    out_of_memory();
    return CHECK_DONE();
}
