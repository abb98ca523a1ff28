/* The contracts of sl_relevance.h, without Python; run plain, under sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_relevance.h"

enum { BATCH = 2, REPEATS = 3, MOST = 35000 };

static const ptrdiff_t widths[] = {0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 65, 97, 8191, 8192, 8193, MOST};

static float r[BATCH * REPEATS * MOST], z[BATCH * MOST], sum[BATCH * REPEATS * MOST], out[BATCH * REPEATS * MOST],
    again[BATCH * REPEATS * MOST];

static void
fill(void)
{
    check_fill(r, BATCH * REPEATS * MOST, 1);
    check_fill(z, BATCH * MOST, 2);
    check_fill(sum, BATCH * REPEATS * MOST, 3);
    for (ptrdiff_t i = 0; i < BATCH * MOST; i += 5) {
        z[i] = i % 2 == 0 ? 0.0F : -0.0F;
    }
    for (ptrdiff_t i = 3; i < BATCH * REPEATS * MOST; i += 7) {
        r[i] = 0.0F;
    }
}

static float
stabilised(float v, float eps, int clip)
{
    const float sign = v < 0.0F ? -1.0F : 1.0F, size = fabsf(v);

    return clip ? sign * (size > eps ? size : eps) : v + eps * sign;
}

static void
check_quotient(ptrdiff_t n, float eps, int clip)
{
    CHECK(sl_relevance_quotient_f32(r, z, BATCH, REPEATS, n, eps, clip, out, 1) == SL_OK);
    for (ptrdiff_t row = 0; row < BATCH * REPEATS; row++) {
        int wrong = 0;
        for (ptrdiff_t i = 0; i < n; i++) {
            const float t = stabilised(z[row / REPEATS * n + i], eps, clip), given = r[row * n + i];
            const float want = given == 0.0F || t == 0.0F ? 0.0F : given / t;
            wrong += out[row * n + i] != want;
        }
        CHECK(wrong == 0);
    }
    for (int n_threads = 2; n_threads <= 8; n_threads++) {
        CHECK(sl_relevance_quotient_f32(r, z, BATCH, REPEATS, n, eps, clip, again, n_threads) == SL_OK);
        CHECK_SAME(out, again, (size_t)(BATCH * REPEATS * n) * sizeof *out);
    }
    memcpy(again, r, sizeof r);
    CHECK(sl_relevance_quotient_f32(again, z, BATCH, REPEATS, n, eps, clip, again, 2) == SL_OK); /* in place */
    CHECK_SAME(out, again, (size_t)(BATCH * REPEATS * n) * sizeof *out);
}

static float
part_of(float x, sl_seen part)
{
    return part == SL_SEEN_POSITIVE ? (x < 0.0F ? 0.0F : x) : part == SL_SEEN_NEGATIVE ? (x > 0.0F ? 0.0F : x) : x;
}

static void
check_times(ptrdiff_t n, sl_seen part, float scale, const float *before)
{
    int wrong = 0;

    CHECK(sl_relevance_times_f32(r, z, BATCH, REPEATS, n, part, scale, before, out, 1) == SL_OK);
    for (ptrdiff_t i = 0; i < BATCH * REPEATS * n; i++) {
        const float product = part_of(z[i / n / REPEATS * n + i % n], part) * r[i], scaled = scale * product;
        const float want = before == NULL ? scaled : scaled + before[i];
        wrong += out[i] != want;
    }
    CHECK(wrong == 0);
    for (int n_threads = 2; n_threads <= 8; n_threads++) {
        CHECK(sl_relevance_times_f32(r, z, BATCH, REPEATS, n, part, scale, before, again, n_threads) == SL_OK);
        CHECK_SAME(out, again, (size_t)(BATCH * REPEATS * n) * sizeof *out);
    }
    memcpy(again, r, sizeof r);
    CHECK(sl_relevance_times_f32(again, z, BATCH, REPEATS, n, part, scale, before, again, 2) == SL_OK);
    CHECK_SAME(out, again, (size_t)(BATCH * REPEATS * n) * sizeof *out);
    if (before != NULL) {
        memcpy(again, before, sizeof sum);
        CHECK(sl_relevance_times_f32(r, z, BATCH, REPEATS, n, part, scale, again, again, 2) == SL_OK);
        CHECK_SAME(out, again, (size_t)(BATCH * REPEATS * n) * sizeof *out);
    }
}

static void
check_by_sign(ptrdiff_t n)
{
    int found = -1, again_found = -1, wrong = 0, bits = 0;

    CHECK(sl_relevance_by_sign_f32(r, z, BATCH, REPEATS, n, out, sum, &found, 1) == SL_OK);
    for (ptrdiff_t i = 0; i < BATCH * REPEATS * n; i++) {
        const float v = z[i / n / REPEATS * n + i % n], above = v > 0.0F ? r[i] : 0.0F, below = v < 0.0F ? r[i] : 0.0F;
        wrong += out[i] != above || sum[i] != below;
        bits |= (above != 0.0F) | (below != 0.0F) << 1;
    }
    CHECK(wrong == 0 && found == bits);
    for (int n_threads = 2; n_threads <= 8; n_threads++) {
        CHECK(sl_relevance_by_sign_f32(r, z, BATCH, REPEATS, n, again, sum, &again_found, n_threads) == SL_OK);
        CHECK(again_found == found);
        CHECK_SAME(out, again, (size_t)(BATCH * REPEATS * n) * sizeof *out);
    }
}

static void
test_arguments(void)
{
    const ptrdiff_t huge = PTRDIFF_MAX;

    CHECK(sl_relevance_quotient_f32(r, z, -1, 1, 4, 0.0F, 0, out, 1) == SL_ERR_ARG);
    CHECK(sl_relevance_quotient_f32(r, z, 1, -1, 4, 0.0F, 0, out, 1) == SL_ERR_ARG);
    CHECK(sl_relevance_quotient_f32(r, z, 1, 1, -4, 0.0F, 0, out, 1) == SL_ERR_ARG);
    CHECK(sl_relevance_quotient_f32(r, z, 1, 1, 4, 0.0F, 0, out, 0) == SL_ERR_ARG);
    CHECK(sl_relevance_quotient_f32(r, z, huge, 2, 4, 0.0F, 0, out, 1) != SL_OK);
    CHECK(sl_relevance_times_f32(r, z, 1, 1, 4, SL_SEEN_SQUARE, 1.0F, NULL, out, 1) == SL_ERR_ARG);
    CHECK(sl_relevance_times_f32(r, z, 1, 1, 4, SL_SEEN_PLAIN, 1.0F, NULL, out, 0) == SL_ERR_ARG);
    CHECK(sl_relevance_by_sign_f32(r, z, 1, 1, -4, out, sum, &(int){0}, 1) == SL_ERR_ARG);
    CHECK(sl_relevance_by_sign_f32(r, z, 1, 1, 4, out, sum, &(int){0}, 0) == SL_ERR_ARG);
    CHECK(sl_relevance_times_f32(r, z, 1, huge, huge, SL_SEEN_PLAIN, 1.0F, NULL, out, 1) != SL_OK);
}

int
main(void)
{
    fill();
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        for (int clip = 0; clip < 2; clip++) {
            check_quotient(widths[i], 0.25F, clip);
            check_quotient(widths[i], 0.0F, clip);
        }
        check_times(widths[i], SL_SEEN_PLAIN, 1.0F, NULL);
        check_times(widths[i], SL_SEEN_POSITIVE, -2.5F, sum);
        check_times(widths[i], SL_SEEN_NEGATIVE, 0.5F, sum);
    }
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        check_by_sign(widths[i]); /* writes into sum: last */
    }
    test_arguments();
    return CHECK_DONE();
}
