/* The contracts of sl_contract.h and sl_adjoint.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_adjoint.h"
#include "sl/sl_contract.h"

static const sl_variant PLAIN = {SL_SEEN_PLAIN, 0.0F};

static float *
filled(ptrdiff_t n, uint64_t seed)
{
    float *x = sl_alloc(n, sizeof *x);

    check_fill(x, n, seed);
    return x;
}

static double
product_of(const float *a, const float *b, ptrdiff_t n)
{
    double sum = 0.0;

    for (ptrdiff_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static ptrdiff_t
weights_of(const sl_conv_shape *s)
{
    return s->outputs * (s->channels / s->groups) * s->kernel_h * s->kernel_w;
}

/* <s, L(x)> = <L^T(s), x> = <W, dL>, the same bits for every number of threads, packed and not. */
static void
one_convolution(const sl_conv_shape *shape)
{
    ptrdiff_t h, w, packed_size;
    CHECK(sl_conv_output_size(shape, &h, &w) == SL_OK);
    const ptrdiff_t n_x = shape->batch * shape->channels * shape->height * shape->width,
                    n_z = shape->batch * shape->outputs * h * w, n_w = weights_of(shape);
    float *x = filled(n_x, 1), *weight = filled(n_w, 2), *s = filled(n_z, 3), *z = filled(n_z, 4), *g = filled(n_x, 5),
          *again = filled(n_x, 6), *f = filled(n_w, 7);
    double expected, size;

    CHECK(sl_conv_forward_f32(shape, x, weight, NULL, PLAIN, PLAIN, NULL, NULL, z, 1) == SL_OK);
    CHECK(sl_conv_adjoint_f32(shape, s, weight, NULL, PLAIN, PLAIN, NULL, g, 1) == SL_OK);
    CHECK(sl_conv_parameter_f32(shape, s, x, f, 1) == SL_OK);
    expected = product_of(s, z, n_z);
    size = sqrt(product_of(s, s, n_z) * product_of(z, z, n_z)) + 1.0;
    CHECK_NEAR(product_of(g, x, n_x), expected, 1e-5 * size);
    CHECK_NEAR(product_of(f, weight, n_w), expected, 1e-5 * size);
    for (int threads = 2; threads <= 3; threads++) {
        CHECK(sl_conv_adjoint_f32(shape, s, weight, NULL, PLAIN, PLAIN, NULL, again, threads) == SL_OK);
        CHECK_SAME(g, again, (size_t)n_x * sizeof *g);
    }
    CHECK(sl_conv_adjoint_packed_size(shape, &packed_size) == SL_OK);
    if (packed_size > 0) {
        float *packed = filled(packed_size, 8);
        CHECK(sl_conv_adjoint_pack_f32(shape, weight, PLAIN, packed) == SL_OK);
        CHECK(sl_conv_adjoint_packed_check(shape, PLAIN, packed, packed_size) == SL_OK);
        CHECK(sl_conv_adjoint_packed_check(shape, (sl_variant){SL_SEEN_SQUARE, 0.0F}, packed, packed_size) ==
              SL_ERR_ARG);
        CHECK(sl_conv_adjoint_f32(shape, s, weight, packed, PLAIN, PLAIN, NULL, again, 2) == SL_OK);
        CHECK_SAME(g, again, (size_t)n_x * sizeof *g);
        sl_free(packed);
    }
    sl_free(f);
    sl_free(again);
    sl_free(g);
    sl_free(z);
    sl_free(s);
    sl_free(weight);
    sl_free(x);
}

static void
convolutions(void)
{
    static const ptrdiff_t kernels[] = {1, 2, 3, 5}, groups[] = {1, 2, 6};

    for (ptrdiff_t k = 0; k < 4; k++) {
        for (ptrdiff_t stride = 1; stride <= 3; stride++) {
            for (ptrdiff_t dilation = 1; dilation <= 2; dilation++) {
                for (ptrdiff_t g = 0; g < 3; g++) {
                    const sl_conv_shape s = {.batch = 2,
                                             .channels = 6,
                                             .height = 11,
                                             .width = 9 + 7 * k,
                                             .outputs = 12,
                                             .kernel_h = kernels[k],
                                             .kernel_w = kernels[(k + g) % 4],
                                             .stride_h = stride,
                                             .stride_w = stride + (k == 3),
                                             .dilation_h = dilation,
                                             .dilation_w = 1,
                                             .top = k,
                                             .left = 1,
                                             .bottom = 2,
                                             .right = k / 2,
                                             .groups = groups[g]};
                    one_convolution(&s);
                }
            }
        }
    }
}

static void
products(void)
{
    enum { M = 13, N = 35, K = 330 };
    float *a = filled(2 * M * K, 1), *b = filled(2 * N * K, 2), *c = filled(2 * M * N, 3),
          *again = filled(2 * M * N, 4);
    int wrong = 0;

    for (ptrdiff_t m = 1; m <= M; m += 3) {
        for (int flips = 0; flips < 4; flips++) {
            const sl_strides sa = {M * K, 0, flips & 1 ? m : K, flips & 1}, sc = {M * N, 0, N, 0},
                             sb = {N * K, 0, flips & 2 ? K : N, flips >> 1};
            CHECK(sl_matmul_f32(2, 1, m, N, K, a, sa, b, sb, 0.5F, c, sc, 1) == SL_OK);
            for (ptrdiff_t o = 0; o < 2; o++) {
                for (ptrdiff_t i = 0; i < m; i++) {
                    for (ptrdiff_t j = 0; j < N; j++) {
                        double sum = 0.0;
                        for (ptrdiff_t p = 0; p < K; p++) {
                            sum += (double)a[o * M * K + (sa.transposed ? p * sa.row + i : i * sa.row + p)] *
                                   (double)b[o * N * K + (sb.transposed ? j * sb.row + p : p * sb.row + j)];
                        }
                        wrong += !(fabs((double)c[o * M * N + i * N + j] - 0.5 * sum) < 1e-4);
                    }
                }
            }
            memcpy(again, c, sizeof *c * 2 * M * N);
            CHECK(sl_matmul_f32(2, 1, m, N, K, a, sa, b, sb, 0.5F, again, sc, 3) == SL_OK);
            CHECK_SAME(c, again, sizeof *c * 2 * M * N);
        }
    }
    CHECK(wrong == 0);
    sl_free(again);
    sl_free(c);
    sl_free(b);
    sl_free(a);
}

static void
pooling(void)
{
    for (ptrdiff_t kernel = 1; kernel <= 3; kernel++) {
        for (ptrdiff_t stride = 1; stride <= 3; stride++) {
            const sl_pool_shape p = {.planes = 3,
                                     .height = 7,
                                     .width = 8,
                                     .kernel_h = kernel,
                                     .kernel_w = 2,
                                     .stride_h = stride,
                                     .stride_w = 2,
                                     .dilation_h = 1,
                                     .dilation_w = 1,
                                     .top = kernel / 2,
                                     .ceil_mode = 1,
                                     .count_include_pad = 1};
            ptrdiff_t h, w;
            CHECK(sl_pool_output_size(&p, &h, &w) == SL_OK);
            float *x = filled(3 * 56, 1), *s = filled(3 * h * w, 2), *y = filled(3 * h * w, 3), *g = filled(3 * 56, 4);
            for (int kind = SL_POOL_MAX; kind <= SL_POOL_MEAN; kind++) {
                CHECK(sl_pool2d_f32(&p, x, (sl_pool_kind)kind, y, 1) == SL_OK);
                CHECK(sl_pool2d_adjoint_f32(&p, x, s, (sl_pool_kind)kind, g, 2) == SL_OK);
                CHECK_NEAR(product_of(g, x, 3 * 56), product_of(s, y, 3 * h * w), 1e-4); /* both are linear in x here */
            }
            sl_free(g);
            sl_free(y);
            sl_free(s);
            sl_free(x);
        }
    }
}

/* Refused calls write nothing; memory that runs out is reported, and nothing is leaked. */
static void
refusals(void)
{
    const sl_conv_shape s = {1, 2, 5, 5, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1};
    float *x = filled(50, 1), *w = filled(54, 2), *g = filled(50, 3), *before = filled(50, 3);

    CHECK(sl_conv_adjoint_f32(&s, x, w, NULL, PLAIN, PLAIN, NULL, g, 0) == SL_ERR_ARG);
    CHECK(sl_conv_adjoint_f32(&s, x, w, NULL, PLAIN, (sl_variant){SL_SEEN_ONE, 0.0F}, NULL, g, 1) == SL_ERR_ARG);
    CHECK(sl_dense_adjoint_f32(x, -1, 2, w, 3, PLAIN, PLAIN, NULL, g, 1) == SL_ERR_ARG);
    CHECK(sl_dense_adjoint_f32(x, PTRDIFF_MAX / 2, 4, w, 3, PLAIN, PLAIN, NULL, g, 1) == SL_ERR_OVERFLOW);
    CHECK(sl_activate_adjoint_f32(x, x, 5, (sl_activation)99, g, 1) == SL_ERR_ARG);
    CHECK_SAME(g, before, 50 * sizeof *g);
    for (long after = 1; after <= 6; after++) {
        sl_alloc_fail_after(after);
        const sl_status status = sl_conv_adjoint_f32(&s, x, w, NULL, PLAIN, PLAIN, NULL, g, 1);
        sl_alloc_fail_after(-1);
        CHECK(status == SL_OK || status == SL_ERR_NOMEM);
        CHECK(after > 1 || status == SL_ERR_NOMEM);
    }
    sl_free(before);
    sl_free(g);
    sl_free(w);
    sl_free(x);
}

int
main(void)
{
    convolutions();
    products();
    pooling();
    refusals();
    if (sl_tier_supported("amx-emulated")) { /* products from tiles, whatever the tier was */
        const char *before = sl_tier_active();
        CHECK(sl_tier_select("amx-emulated") == SL_OK);
        convolutions();
        products();
        refusals();
        CHECK(sl_tier_select(before) == SL_OK);
    }
    return CHECK_DONE();
}
