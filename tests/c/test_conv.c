/* The contract of sl_conv.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_conv.h"
#include "sl/sl_cpu.h"

#include <stdlib.h>
#include <string.h>

static unsigned state = 1;

static ptrdiff_t
pick(ptrdiff_t n)
{
    state = state * 1664525u + 1013904223u;
    return (ptrdiff_t)(state >> 8) % n;
}

static float *
filled(ptrdiff_t n)
{
    float *x = sl_alloc(n, sizeof *x);

    for (ptrdiff_t i = 0; i < n; i++) {
        x[i] = (float)pick(1 << 20) / 524288.0F - 1.0F;
    }
    return x;
}

/* The sum of one output, in double; *size is the sum of the magnitudes. */
static double
one_sum(const sl_conv_shape *s, const float *x, const float *w, ptrdiff_t b, ptrdiff_t o, ptrdiff_t i, ptrdiff_t j,
        double *size)
{
    const ptrdiff_t in_g = s->channels / s->groups, group = o / (s->outputs / s->groups);
    double sum = 0.0;

    *size = 0.0;
    for (ptrdiff_t c = 0; c < in_g; c++) {
        for (ptrdiff_t u = 0; u < s->kernel_h; u++) {
            for (ptrdiff_t v = 0; v < s->kernel_w; v++) {
                const ptrdiff_t y = i * s->stride_h + u * s->dilation_h - s->top,
                                z = j * s->stride_w + v * s->dilation_w - s->left;
                if (y >= 0 && y < s->height && z >= 0 && z < s->width) {
                    const double t = (double)x[((b * s->channels + group * in_g + c) * s->height + y) * s->width + z] *
                                     (double)w[((o * in_g + c) * s->kernel_h + u) * s->kernel_w + v];
                    sum += t;
                    *size += fabs(t);
                }
            }
        }
    }
    return sum;
}

static void
convolution(const sl_conv_shape *s)
{
    ptrdiff_t h = 0, w = 0, size = 0;
    float *x, *weights, *bias, *addend, *y, *again, *packed = NULL;
    int wrong = 0;

    if (sl_conv_output_size(s, &h, &w) != SL_OK) {
        return;
    }
    const ptrdiff_t n = s->batch * s->outputs * h * w;
    x = filled(s->batch * s->channels * s->height * s->width);
    weights = filled(s->outputs * (s->channels / s->groups) * s->kernel_h * s->kernel_w);
    bias = filled(s->outputs);
    addend = filled(n);
    y = filled(n);
    again = sl_alloc(n, sizeof *again);
    memcpy(again, addend, (size_t)n * sizeof *again);
    CHECK(sl_conv_packed_size(s, &size) == SL_OK);
    if (size > 0) {
        packed = sl_alloc(size, sizeof *packed);
        CHECK(sl_conv_pack_f32(s, weights, packed) == SL_OK);
        CHECK(sl_conv_packed_check(s, packed, size) == SL_OK);
        CHECK(sl_conv_packed_check(s, packed, size - 1) == SL_ERR_ARG);
    }
    CHECK(sl_conv2d_f32(s, x, weights, packed, bias, addend, SL_ACT_RELU, y, 1) == SL_OK);
    for (ptrdiff_t i = 0; i < n; i++) {
        double magnitude,
            want = one_sum(s, x, weights, i / w / h / s->outputs, i / w / h % s->outputs, i / w % h, i % w, &magnitude);
        want += (double)bias[i / w / h % s->outputs] + (double)addend[i];
        wrong += !(fabs((double)y[i] - fmax(want, 0.0)) <= 4e-6 * (magnitude + 2.0));
    }
    CHECK(wrong == 0);
    CHECK(sl_conv2d_f32(s, x, weights, NULL, bias, again, SL_ACT_RELU, again, 3) ==
          SL_OK); /* in place, packed on the fly */
    CHECK(memcmp(again, y, (size_t)n * sizeof *y) == 0);
    if (wrong != 0) {
        fprintf(stderr, "  B%td C%td %tdx%td O%td k%tdx%td s%td,%td d%td,%td p%td,%td,%td,%td g%td\n", s->batch,
                s->channels, s->height, s->width, s->outputs, s->kernel_h, s->kernel_w, s->stride_h, s->stride_w,
                s->dilation_h, s->dilation_w, s->top, s->left, s->bottom, s->right, s->groups);
    }
    sl_free(packed);
    sl_free(again);
    sl_free(y);
    sl_free(addend);
    sl_free(bias);
    sl_free(weights);
    sl_free(x);
}

static void
many_shapes(int count)
{
    static const ptrdiff_t channels[] = {1, 2, 3, 5, 16}, outputs[] = {1, 2, 5, 7, 13, 33},
                           kernels[] = {1, 1, 2, 3, 3, 5}, steps[] = {1, 1, 2, 3};

    for (int i = 0; i < count; i++) {
        sl_conv_shape s = {
            .batch = 1 + pick(3), .height = 1 + pick(20), .width = 1 + pick(pick(2) ? 34 : 6), .groups = 1 + pick(3)};
        const int depthwise = pick(3) == 0, padded = pick(2) == 0;
        s.channels = s.groups * (depthwise ? 1 : channels[pick(5)]);
        s.outputs = s.groups * (depthwise ? 1 + pick(2) : outputs[pick(6)]);
        s.kernel_h = kernels[pick(6)];
        s.kernel_w = pick(2) ? s.kernel_h : kernels[pick(6)];
        s.stride_h = steps[pick(4)];
        s.stride_w = steps[pick(4)];
        s.dilation_h = steps[pick(4)];
        s.dilation_w = steps[pick(4)];
        if (padded) {
            s.top = pick(4), s.left = pick(4), s.bottom = pick(4), s.right = pick(4);
        }
        convolution(&s);
    }
}

static void
special_shapes(void)
{
    /* more columns than a tile, more rows than a block, K over several blocks, taps of one channel over several blocks */
    const sl_conv_shape shapes[] = {
        {2, 70, 9, 11, 250, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {3, 700, 7, 7, 20, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1},
        {3, 5, 1, 2, 4, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1},     {5, 9, 1, 1, 3, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1},
        {1, 2, 40, 40, 7, 19, 18, 1, 1, 1, 1, 3, 2, 1, 0, 1}, {1, 3, 64, 66, 32, 7, 7, 2, 2, 1, 1, 3, 3, 3, 3, 1},
        {1, 6, 130, 70, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6},  {1, 6, 130, 71, 6, 5, 5, 2, 2, 1, 1, 1, 1, 2, 2, 6},
    };

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        convolution(shapes + i);
    }
}

static void
refused(void)
{
    const sl_conv_shape good = {1, 4, 5, 5, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    float x[100] = {0}, w[288] = {0}, y[200];
    ptrdiff_t h = -1, v = -1, size = 0;
    sl_conv_shape s = good;

    memset(y, 1, sizeof y);
    CHECK(sl_conv_output_size(&good, &h, &v) == SL_OK && h == 5 && v == 5);
    s.kernel_h = 8;
    CHECK(sl_conv_output_size(&s, &h, &v) == SL_ERR_ARG && h == 5);
    s = good, s.stride_w = 0;
    CHECK(sl_conv_output_size(&s, &h, &v) == SL_ERR_ARG);
    s = good, s.groups = 3;
    CHECK(sl_conv_output_size(&s, &h, &v) == SL_ERR_ARG);
    s = good, s.top = PTRDIFF_MAX - 2;
    CHECK(sl_conv_output_size(&s, &h, &v) == SL_ERR_OVERFLOW);
    s = good, s.batch = PTRDIFF_MAX / 64;
    CHECK(sl_conv_output_size(&s, &h, &v) == SL_ERR_OVERFLOW);
    CHECK(sl_conv2d_f32(&good, x, w, NULL, NULL, NULL, SL_ACT_NONE, y, 0) == SL_ERR_ARG);
    CHECK(sl_conv2d_f32(&good, x, w, NULL, NULL, NULL, (sl_activation)99, y, 1) == SL_ERR_ARG);
    s = good, s.batch = 0;
    CHECK(sl_conv2d_f32(&s, x, w, NULL, NULL, NULL, SL_ACT_NONE, y, 1) == SL_OK);
    CHECK(sl_conv_packed_size(&good, &size) == SL_OK && size > 0);
    float *packed = sl_alloc(size, sizeof *packed);
    CHECK(sl_conv_pack_f32(&good, w, packed) == SL_OK);
    s = good, s.kernel_h = 1;
    CHECK(sl_conv2d_f32(&s, x, w, packed, NULL, NULL, SL_ACT_NONE, y, 1) == SL_ERR_ARG);
    packed[0] = 0.0F;
    CHECK(sl_conv2d_f32(&good, x, w, packed, NULL, NULL, SL_ACT_NONE, y, 1) == SL_ERR_ARG);
    sl_free(packed);
    CHECK(y[0] == y[199]); /* nothing was written */
}

#ifdef SL_TESTING
static void
out_of_memory(void)
{
    const sl_conv_shape product = {1, 4, 5, 5, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1},
                        depthwise = {1, 4, 5, 5, 4, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4};
    float x[100] = {0}, w[288] = {0}, y[200];
    sl_status status = SL_ERR_NOMEM;
    int after = 0;

    while (status == SL_ERR_NOMEM && after < 20) {
        sl_alloc_fail_after(++after);
        status = sl_conv2d_f32(&product, x, w, NULL, NULL, NULL, SL_ACT_NONE, y, 1);
    }
    CHECK(status == SL_OK && after == 5); /* four allocations, each failed once */
    for (status = SL_ERR_NOMEM, after = 0; status == SL_ERR_NOMEM && after < 20;) {
        sl_alloc_fail_after(++after);
        status = sl_conv2d_f32(&depthwise, x, w, NULL, NULL, NULL, SL_ACT_NONE, y, 1);
    }
    CHECK(status == SL_OK && after == 3);
    sl_alloc_fail_after(-1);
}
#endif

static void
at_tier(const char *tier, int shapes)
{
    CHECK(sl_tier_select(tier) == SL_OK);
    special_shapes();
    many_shapes(shapes);
    refused();
#ifdef SL_TESTING
    out_of_memory();
#endif
}

int
main(void)
{
    for (const char *const *tier = sl_tier_names(); *tier != NULL; tier++) {
        if (sl_tier_supported(*tier)) {
            at_tier(*tier, 400);
        }
    }
    for (const char *const *tier = sl_tier_by_name(); *tier != NULL; tier++) {
        if (sl_tier_supported(*tier) &&
            strncmp(*tier, "amx3", 4) != 0) { /* three products have a wider bound of their own */
            at_tier(*tier, 120);
        }
    }
    return CHECK_DONE();
}
