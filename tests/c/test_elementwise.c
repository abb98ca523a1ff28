/* The contracts of sl_elementwise.h, sl_pool.h and the dense layers of sl_gemm.h, without Python; run plain, under sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_cpu.h"
#include "sl/sl_elementwise.h"
#include "sl/sl_gemm.h"
#include "sl/sl_pool.h"

#include <string.h>

enum { N = 1003 };

static double
activated(double x, sl_activation kind)
{
    const double gate = fmin(fmax(x + 3.0, 0.0), 6.0) / 6.0;

    switch (kind) {
    case SL_ACT_RELU:
        return fmax(x, 0.0);
    case SL_ACT_RELU6:
        return fmin(fmax(x, 0.0), 6.0);
    case SL_ACT_SIGMOID:
        return 1.0 / (1.0 + exp(-x));
    case SL_ACT_SILU:
        return x / (1.0 + exp(-x));
    case SL_ACT_HARDSIGMOID:
        return gate;
    case SL_ACT_HARDSWISH:
        return x * gate;
    case SL_ACT_GELU:
        return x * 0.5 * erfc(-x / sqrt(2.0));
    case SL_ACT_GELU_TANH:
        return x * 0.5 * (1.0 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case SL_ACT_QUICK_GELU:
        return x / (1.0 + exp(-1.702 * x));
    case SL_ACT_TANH:
        return tanh(x);
    default:
        return x;
    }
}

static void
maps(void)
{
    float x[N], z[N], y[N];

    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) * 0.05F;
        z[i] = (float)(i % 17) - 8.0F;
    }
    for (int kind = SL_ACT_NONE; kind <= SL_ACT_LAST; kind++) {
        for (ptrdiff_t n = N - 20; n <= N; n++) {
            int wrong = 0;
            CHECK(sl_activate_f32(x, n, (sl_activation)kind, y, 2) == SL_OK);
            for (ptrdiff_t i = 0; i < n; i++) {
                wrong += !(fabs((double)y[i] - activated((double)x[i], (sl_activation)kind)) <=
                           1e-6 * (1.0 + fabs((double)x[i])));
            }
            CHECK(wrong == 0);
        }
        CHECK(sl_add_f32(x, z, N, (sl_activation)kind, y, 1) == SL_OK);
        CHECK_NEAR((double)y[100], activated((double)(x[100] + z[100]), (sl_activation)kind), 1e-5);
    }
    CHECK(sl_multiply_f32(x, z, N, y, 3) == SL_OK && y[N - 1] == x[N - 1] * z[N - 1]);
    CHECK(sl_scale_rows_f32(x, 17, 59, z, y, 3) == SL_OK && y[N - 1] == x[N - 1] * z[16]);
    CHECK(sl_scale_shift_f32(x, 1, 17, 59, z, x, SL_ACT_NONE, y, 1) == SL_OK && y[N - 1] == x[N - 1] * z[16] + x[16]);
    CHECK(sl_softmax_f32(x, 17, 59, y, 1) == SL_OK);
    for (int r = 0; r < 17; r++) {
        double sum = 0.0;
        for (int i = 0; i < 59; i++) {
            sum += (double)y[r * 59 + i];
        }
        CHECK_NEAR(sum, 1.0, 1e-5);
    }
}

static void
reductions(void)
{
    float x[60], y[3];

    for (int i = 0; i < 60; i++) {
        x[i] = (float)(i % 20) - 12.0F;
    }
    CHECK(sl_reduce_f32(x, 3, 20, SL_REDUCE_MEAN, y, 2) == SL_OK && y[2] == -2.5F);
    CHECK(sl_reduce_f32(x, 3, 20, SL_REDUCE_MAX, y, 2) == SL_OK && y[1] == 7.0F);
    CHECK(sl_reduce_f32(x, 3, 20, SL_REDUCE_ABSMEAN, y, 2) == SL_OK && fabsf(y[0] - 5.3F) < 1e-6F);
    CHECK(sl_reduce_f32(x, 3, 20, SL_REDUCE_ABSMAX, y, 2) == SL_OK && y[0] == 12.0F);
    x[25] = NAN;
    for (int kind = SL_REDUCE_MEAN; kind <= SL_REDUCE_ABSMAX; kind++) {
        CHECK(sl_reduce_f32(x, 3, 20, (sl_reduction)kind, y, 1) == SL_OK && isnan(y[1]) && !isnan(y[0]) &&
              !isnan(y[2]));
    }
    CHECK(sl_reduce_f32(x, 3, 0, SL_REDUCE_MEAN, y, 1) == SL_ERR_ARG);
    CHECK(sl_reduce_f32(x, 3, 20, (sl_reduction)9, y, 1) == SL_ERR_ARG);
}

static void
pooling(void)
{
    const sl_pool_shape ceil_mode = {1, 5, 5, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0, 1, 1};
    sl_pool_shape s = ceil_mode;
    float x[25], y[16];
    ptrdiff_t h = 0, w = 0;

    for (int i = 0; i < 25; i++) {
        x[i] = (float)i;
    }
    CHECK(sl_pool_output_size(&s, &h, &w) == SL_OK && h == 3 && w == 3);
    CHECK(sl_pool2d_f32(&s, x, SL_POOL_MAX, y, 1) == SL_OK && y[0] == 6.0F && y[2] == 9.0F && y[8] == 24.0F);
    CHECK(sl_pool2d_f32(&s, x, SL_POOL_MEAN, y, 1) == SL_OK && y[0] == 3.0F && y[2] == 6.5F && y[8] == 24.0F);
    s = ceil_mode, s.top = s.left = 1, s.count_include_pad = 0;
    CHECK(sl_pool2d_f32(&s, x, SL_POOL_MEAN, y, 1) == SL_OK && y[0] == 0.0F && y[1] == 1.5F);
    s.count_include_pad = 1;
    CHECK(sl_pool2d_f32(&s, x, SL_POOL_MEAN, y, 1) == SL_OK && y[1] == 0.75F);
    s = ceil_mode, s.kernel_h = 7, s.ceil_mode = 0;
    CHECK(sl_pool_output_size(&s, &h, &w) == SL_ERR_ARG);
    s = ceil_mode, s.planes = -1;
    CHECK(sl_pool2d_f32(&s, x, SL_POOL_MAX, y, 1) == SL_ERR_ARG);
    s = ceil_mode, s.planes = PTRDIFF_MAX / 8;
    CHECK(sl_pool2d_f32(&s, x, SL_POOL_MAX, y, 1) == SL_ERR_OVERFLOW);
    CHECK(sl_adaptive_mean_f32(x, 1, 5, 5, 1, 1, y, 1) == SL_OK && y[0] == 12.0F);
    CHECK(sl_adaptive_mean_f32(x, 1, 5, 5, 2, 2, y, 1) == SL_OK && y[0] == 6.0F && y[3] == 18.0F);
    CHECK(sl_adaptive_mean_f32(x, 1, 0, 5, 1, 1, y, 1) == SL_ERR_ARG);
#ifdef SL_TESTING
    sl_alloc_fail_after(1);
    CHECK(sl_pool2d_f32(&ceil_mode, x, SL_POOL_MAX, y, 1) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
#endif
}

/* Exact numbers: small integers. */
static void
dense(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k)
{
    float *x = sl_alloc(m * k, sizeof *x), *w = sl_alloc(n * k, sizeof *w), *b = sl_alloc(n, sizeof *b),
          *y = sl_alloc(m * n, sizeof *y), *packed = NULL;
    ptrdiff_t size = 0;
    int wrong = 0;

    for (ptrdiff_t i = 0; i < m * k; i++) {
        x[i] = (float)(i * 7 % 11) - 5.0F;
    }
    for (ptrdiff_t i = 0; i < n * k; i++) {
        w[i] = (float)(i * 5 % 13) - 6.0F;
    }
    for (ptrdiff_t j = 0; j < n; j++) {
        b[j] = (float)j;
    }
    CHECK(sl_dense_packed_size(n, k, &size) == SL_OK);
    packed = sl_alloc(size, sizeof *packed);
    CHECK(sl_dense_pack_f32(w, n, k, packed) == SL_OK && sl_dense_packed_check(n, k, packed, size) == SL_OK);
    CHECK(sl_dense_packed_check(n, k + 1, packed, size) == SL_ERR_ARG);
    for (int use = 0; use < 2; use++) {
        CHECK(sl_dense_f32(x, m, k, w, n, use ? packed : NULL, b, NULL, SL_ACT_RELU, y, 2) == SL_OK);
        for (ptrdiff_t i = 0; i < m; i++) {
            for (ptrdiff_t j = 0; j < n; j++) {
                float sum = b[j];
                for (ptrdiff_t p = 0; p < k; p++) {
                    sum += x[i * k + p] * w[j * k + p];
                }
                wrong += y[i * n + j] != fmaxf(sum, 0.0F);
            }
        }
    }
    CHECK(wrong == 0);
#ifdef SL_TESTING
    if (k > 0) {
        sl_alloc_fail_after(1);
        CHECK(sl_dense_f32(x, m, k, w, n, packed, b, NULL, SL_ACT_RELU, y, 1) == SL_ERR_NOMEM);
        sl_alloc_fail_after(-1);
    }
#endif
    packed[1] = 0.0F;
    CHECK(sl_dense_f32(x, m, k, w, n, packed, b, NULL, SL_ACT_RELU, y, 1) == SL_ERR_ARG);
    sl_free(packed);
    sl_free(y);
    sl_free(b);
    sl_free(w);
    sl_free(x);
}

static void
finite(void)
{
    static float x[40000];

    for (int i = 0; i < 40000; i++) {
        x[i] = i % 3 == 0 ? -3.4028234e38F : (float)i * 1e-42F;
    }
    CHECK(sl_all_finite_f32(x, 40000) == 1 && sl_all_finite_f32(x, 0) == 1);
    for (int i = 0; i < 40000; i += i < 40 ? 1 : 1237) {
        const float kept = x[i];
        x[i] = i % 2 != 0 ? NAN : i % 4 != 0 ? INFINITY : -INFINITY;
        CHECK(sl_all_finite_f32(x, 40000) == 0 && sl_all_finite_f32(x, i) == 1 && sl_all_finite_f32(x + i, 1) == 0);
        x[i] = kept;
    }
}

static void
refused(void)
{
    float x[4] = {0}, y[4] = {7, 7, 7, 7};
    ptrdiff_t size = 5;

    CHECK(sl_activate_f32(x, -1, SL_ACT_RELU, y, 1) == SL_ERR_ARG);
    CHECK(sl_activate_f32(x, 4, SL_ACT_RELU, y, 0) == SL_ERR_ARG);
    CHECK(sl_activate_f32(x, 4, (sl_activation)(SL_ACT_LAST + 1), y, 1) == SL_ERR_ARG);
    CHECK(sl_dense_f32(x, -1, 2, x, 2, NULL, NULL, NULL, SL_ACT_NONE, y, 1) == SL_ERR_ARG);
    CHECK(sl_dense_f32(x, PTRDIFF_MAX / 2, 2, x, 4, NULL, NULL, NULL, SL_ACT_NONE, y, 1) == SL_ERR_OVERFLOW);
    CHECK(sl_dense_packed_size(PTRDIFF_MAX / 4, 64, &size) == SL_ERR_OVERFLOW && size == 5);
    CHECK(y[0] == 7.0F && y[3] == 7.0F);
}

int
main(void)
{
    for (const char *const *tier = sl_tier_names(); *tier != NULL; tier++) {
        if (sl_tier_supported(*tier)) {
            CHECK(sl_tier_select(*tier) == SL_OK);
            maps();
            reductions();
            finite();
            pooling();
            for (ptrdiff_t m = 1; m <= 9; m++) {
                dense(m, 37, 50);
                dense(m, 16, 330);
            }
            dense(250, 70, 350);
            dense(2, 33, 1024);
            dense(3, 5, 0);
            refused();
        }
    }
    return CHECK_DONE();
}
