/* The contract of sl_winograd.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_winograd.h"

static const sl_variant PLAIN = {SL_SEEN_PLAIN, 0.0F};

static float *
filled(ptrdiff_t n, uint64_t seed)
{
    float *x = sl_alloc(n, sizeof *x);

    check_fill(x, n, seed);
    return x;
}

static float *
packed_weights(const sl_conv_shape *shape, int back, const float *w, sl_variant variant)
{
    ptrdiff_t size = 0;
    float *packed;

    CHECK(sl_winograd_packed_size(shape, back, &size) == SL_OK);
    packed = filled(size, 9);
    CHECK(sl_winograd_pack_f32(shape, back, w, variant, packed) == SL_OK);
    CHECK(sl_winograd_packed_check(shape, back, variant, packed, size) == SL_OK);
    CHECK(sl_winograd_packed_check(shape, back, variant, packed, size - 1) == SL_ERR_ARG);
    CHECK(sl_winograd_packed_check(shape, !back, variant, packed, size) == SL_ERR_ARG);
    CHECK(sl_winograd_packed_check(shape, back, (sl_variant){SL_SEEN_ONE, 0.0F}, packed, size) == SL_ERR_ARG);
    return packed;
}

/* The same values as the other way gives, the same bits for every number of threads; x and y end where their memory ends. */
static void
one_shape(const sl_conv_shape *shape, sl_variant variant)
{
    ptrdiff_t h, w;
    CHECK(sl_conv_output_size(shape, &h, &w) == SL_OK);
    const ptrdiff_t n_x = shape->batch * shape->channels * shape->height * shape->width,
                    n_z = shape->batch * shape->outputs * h * w,
                    n_w = shape->outputs * (shape->channels / shape->groups) * 9;
    const sl_variant part = {SL_SEEN_POSITIVE, 0.0F};
    float *x = filled(n_x, 1), *weight = filled(n_w, 2), *s = filled(n_z, 3), *bias = filled(shape->outputs, 4),
          *z = filled(n_z, 5), *expected_z = filled(n_z, 6), *g = filled(n_x, 7), *expected_g = filled(n_x, 8);
    float *forward = packed_weights(shape, 0, weight, variant), *back = packed_weights(shape, 1, weight, variant);
    const sl_finish finish = {.sum = s, .scale = 0.5F, .below = INFINITY};
    double worst = 0.0;

    CHECK(sl_conv_forward_f32(shape, x, weight, NULL, variant, part, bias, &finish, expected_z, 1) == SL_OK);
    CHECK(sl_conv_adjoint_f32(shape, s, weight, NULL, variant, PLAIN, NULL, expected_g, 1) == SL_OK);
    for (int threads = 1; threads <= 3; threads++) {
        float *to_z = threads == 1 ? z : filled(n_z, 10), *to_g = threads == 1 ? g : filled(n_x, 11);
        CHECK(sl_conv_forward_f32(shape, x, weight, forward, variant, part, bias, &finish, to_z, threads) == SL_OK);
        CHECK(sl_conv_adjoint_f32(shape, s, weight, back, variant, PLAIN, NULL, to_g, threads) == SL_OK);
        CHECK_SAME(z, to_z, (size_t)n_z * sizeof *z);
        CHECK_SAME(g, to_g, (size_t)n_x * sizeof *g);
        if (threads > 1) {
            sl_free(to_z);
            sl_free(to_g);
        }
    }
    for (ptrdiff_t i = 0; i < n_z; i++) {
        worst = fmax(worst, fabs((double)z[i] - (double)expected_z[i]));
    }
    for (ptrdiff_t i = 0; i < n_x; i++) {
        worst = fmax(worst, fabs((double)g[i] - (double)expected_g[i]));
    }
    CHECK(worst < 4e-6 * sqrt((double)(shape->channels + shape->outputs) * 9.0));
    CHECK(sl_conv_adjoint_f32(shape, s, weight, forward, variant, PLAIN, NULL, g, 1) == SL_ERR_ARG);
    CHECK(sl_conv_forward_f32(shape, x, weight, back, variant, part, bias, NULL, z, 1) == SL_ERR_ARG);
    sl_free(back);
    sl_free(forward);
    sl_free(expected_g);
    sl_free(g);
    sl_free(expected_z);
    sl_free(z);
    sl_free(bias);
    sl_free(s);
    sl_free(weight);
    sl_free(x);
}

static sl_conv_shape
square(ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t height, ptrdiff_t width, ptrdiff_t outputs, ptrdiff_t groups)
{
    return (sl_conv_shape){.batch = batch,
                           .channels = channels,
                           .height = height,
                           .width = width,
                           .outputs = outputs,
                           .kernel_h = 3,
                           .kernel_w = 3,
                           .stride_h = 1,
                           .stride_w = 1,
                           .dilation_h = 1,
                           .dilation_w = 1,
                           .top = 1,
                           .left = 1,
                           .bottom = 1,
                           .right = 1,
                           .groups = groups};
}

static void
many_shapes(void)
{
    const sl_variant variants[] = {PLAIN, {SL_SEEN_SQUARE, 0.0F}, {SL_SEEN_MORE_NEGATIVE, 0.5F}};
    const sl_conv_shape shapes[] = {square(1, 3, 7, 9, 5, 1),     square(3, 16, 4, 5, 30, 2),
                                    square(1, 4, 130, 131, 4, 1), square(2, 140, 7, 7, 13, 1),
                                    square(5, 4, 3, 3, 4, 1),     square(1, 6, 40, 300, 6, 3),
                                    square(1, 2, 2, 260, 80, 1),  square(70, 1, 1, 1, 2, 1)};

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        one_shape(&shapes[i], variants[i % 3]);
    }
    for (ptrdiff_t padding = 0; padding < 5; padding++) {
        sl_conv_shape s = square(2, 5, 10, 8, 7, 1);
        s.top = padding;
        s.left = 4 - padding;
        s.bottom = padding / 2;
        s.right = 3 * (padding % 2);
        one_shape(&s, PLAIN);
    }
}

static void
refused(void)
{
    sl_conv_shape s = square(1, 64, 28, 28, 64, 1);
    ptrdiff_t size;

    CHECK(sl_winograd_pays(&s, 0) == 1 && sl_winograd_pays(&s, 1) == 1);
    s.dilation_w = 2;
    CHECK(sl_winograd_pays(&s, 0) == 0 && sl_winograd_packed_size(&s, 0, &size) == SL_ERR_ARG);
    s = square(1, 64, 28, 28, 64, 1);
    s.stride_h = 2;
    CHECK(sl_winograd_pays(&s, 0) == 0 && sl_winograd_packed_size(&s, 1, &size) == SL_ERR_ARG);
    s = square(1, 64, 28, 28, 64, 64);
    CHECK(sl_winograd_pays(&s, 0) == 0);
    s.groups = 0;
    CHECK(sl_winograd_pays(&s, 0) == 0 && sl_winograd_packed_size(&s, 0, &size) == SL_ERR_ARG);
}

/* What one picture gives does not depend on the batch; NaN reaches the outputs whose window covers it and no others. */
static void
apart(void)
{
    const sl_conv_shape many = square(3, 4, 11, 11, 8, 1), one = square(1, 4, 11, 11, 8, 1);
    float *x = filled(3 * 4 * 121, 1), *w = filled(8 * 4 * 9, 2), *y = filled(3 * 8 * 121, 3), *z = filled(8 * 121, 4);
    float *packed = packed_weights(&many, 0, w, PLAIN);
    int wrong = 0;

    CHECK(sl_conv2d_f32(&many, x, w, packed, NULL, NULL, SL_ACT_RELU, y, 2) == SL_OK);
    for (ptrdiff_t b = 0; b < 3; b++) {
        CHECK(sl_conv2d_f32(&one, x + b * 484, w, packed, NULL, NULL, SL_ACT_RELU, z, 1) == SL_OK);
        CHECK_SAME(z, y + b * 968, sizeof *z * 968);
    }
    x[5 * 11 + 6] = NAN;
    CHECK(sl_conv2d_f32(&one, x, w, packed, NULL, NULL, SL_ACT_NONE, z, 1) == SL_OK);
    for (ptrdiff_t i = 0; i < 11; i++) {
        for (ptrdiff_t j = 0; j < 11; j++) {
            const int covers = labs((long)(i - 5)) <= 1 && labs((long)(j - 6)) <= 1;
            wrong += covers != (z[i * 11 + j] != z[i * 11 + j]);
        }
    }
    CHECK(wrong == 0);
    sl_free(packed);
    sl_free(z);
    sl_free(y);
    sl_free(w);
    sl_free(x);
}

#ifdef SL_TESTING
static void
out_of_memory(void)
{
    const sl_conv_shape s = square(1, 4, 6, 6, 4, 1);
    float *x = filled(144, 1), *w = filled(144, 2), *y = filled(144, 3), *packed = packed_weights(&s, 0, w, PLAIN);
    sl_status status = SL_ERR_NOMEM;
    int after = 0;

    while (status == SL_ERR_NOMEM && after < 20) {
        sl_alloc_fail_after(++after);
        status = sl_conv2d_f32(&s, x, w, packed, NULL, NULL, SL_ACT_NONE, y, 1);
    }
    CHECK(status == SL_OK && after == 3); /* two allocations, each failed once */
    sl_alloc_fail_after(1);
    CHECK(sl_winograd_pack_f32(&s, 0, w, PLAIN, packed) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
    sl_free(packed);
    sl_free(y);
    sl_free(w);
    sl_free(x);
}
#endif

int
main(void)
{
    for (const char *const *tier = sl_tier_names(); *tier != NULL; tier++) {
        if (sl_tier_supported(*tier)) {
            CHECK(sl_tier_select(*tier) == SL_OK);
            many_shapes();
            refused();
            apart();
#ifdef SL_TESTING
            out_of_memory();
#endif
        }
    }
    return CHECK_DONE();
}
