/* Pooling.  Contract: sl_pool.h.  Each output row is made from one padded buffer row: the window's rows are combined into it, then its columns. */
#include "sl/sl_pool.h"

#include <math.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"

static int
thread_index(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static sl_status
output_length(ptrdiff_t size, ptrdiff_t before, ptrdiff_t after, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation,
              int ceil_mode, ptrdiff_t *out)
{
    ptrdiff_t padded, reach, n;

    if (size < 0 || before < 0 || after < 0 || kernel < 1 || stride < 1 || dilation < 1) {
        return SL_ERR_ARG;
    }
    if (__builtin_add_overflow(size, before, &padded) || __builtin_add_overflow(padded, after, &padded) ||
        sl_mul(kernel - 1, dilation, &reach) < 0 || padded > PTRDIFF_MAX / 4 || stride > PTRDIFF_MAX / 4 ||
        reach > PTRDIFF_MAX / 4) {
        return SL_ERR_OVERFLOW;
    }
    n = padded - reach - 1 + (ceil_mode ? stride - 1 : 0);
    if (n < 0) {
        return SL_ERR_ARG;
    }
    n = n / stride + 1;
    if (ceil_mode && (n - 1) * stride >= size + before) {
        n--;
    }
    if (n < 1) {
        return SL_ERR_ARG;
    }
    *out = n;
    return SL_OK;
}

sl_status
sl_pool_output_size(const sl_pool_shape *s, ptrdiff_t *out_h, ptrdiff_t *out_w)
{
    ptrdiff_t h, w, n;
    sl_status status = s->planes < 0 ? SL_ERR_ARG : SL_OK;

    if (status == SL_OK) {
        status = output_length(s->height, s->top, s->bottom, s->kernel_h, s->stride_h, s->dilation_h, s->ceil_mode, &h);
    }
    if (status == SL_OK) {
        status = output_length(s->width, s->left, s->right, s->kernel_w, s->stride_w, s->dilation_w, s->ceil_mode, &w);
    }
    if (status != SL_OK) {
        return status;
    }
    if (sl_mul(s->planes, h, &n) < 0 || sl_mul(n, w, &n) < 0 || sl_mul(n, 2 * (ptrdiff_t)sizeof(float), &n) < 0 ||
        sl_mul(w, s->stride_w, &n) < 0 || sl_mul(n, 2 * (ptrdiff_t)sizeof(double), &n) < 0 ||
        sl_mul(h, s->stride_h, &n) < 0) {
        return SL_ERR_OVERFLOW;
    }
    *out_h = h;
    *out_w = w;
    return SL_OK;
}

/* Taps from `start` that lie in [0, size): *first is the first one's number, returned is how many. */
static ptrdiff_t
taps_inside(ptrdiff_t start, ptrdiff_t kernel, ptrdiff_t dilation, ptrdiff_t size, ptrdiff_t *first)
{
    const ptrdiff_t low = start < 0 ? sl_ceil_div(-start, dilation) : 0;
    const ptrdiff_t high = start >= size ? 0 : sl_min(kernel, (size - 1 - start) / dilation + 1);

    *first = low;
    return high > low ? high - low : 0;
}

static void
max_row(const sl_pool_shape *s, const sl_tier *tier, const float *x, ptrdiff_t row, ptrdiff_t out_w, ptrdiff_t length,
        float *buffer, float *y)
{
    const ptrdiff_t start = row * s->stride_h - s->top, inside = sl_min(s->width, length - s->left);
    ptrdiff_t first;
    const ptrdiff_t taps = taps_inside(start, s->kernel_h, s->dilation_h, s->height, &first);

    for (ptrdiff_t i = 0; i < length; i++) {
        buffer[i] = -INFINITY;
    }
    for (ptrdiff_t u = first; u < first + taps; u++) {
        tier->row_max(x + (start + u * s->dilation_h) * s->width, inside, buffer + s->left);
    }
    for (ptrdiff_t j = 0; j < out_w; j++) {
        y[j] = -INFINITY;
    }
    for (ptrdiff_t v = 0; v < s->kernel_w; v++) {
        tier->row_max_strided(buffer + v * s->dilation_w, s->stride_w, out_w, y);
    }
}

static void
mean_row(const sl_pool_shape *s, const sl_tier *tier, const float *x, ptrdiff_t row, ptrdiff_t out_w, ptrdiff_t length,
         double *buffer, float *y)
{
    const ptrdiff_t start = row * s->stride_h - s->top, inside = sl_min(s->width, length - s->left);
    ptrdiff_t first, other;
    const ptrdiff_t taps = taps_inside(start, s->kernel_h, s->dilation_h, s->height, &first);
    const ptrdiff_t rows = s->count_include_pad ? taps_inside(start + s->top, s->kernel_h, s->dilation_h,
                                                              s->height + s->top + s->bottom, &other)
                                                : taps;

    for (ptrdiff_t i = 0; i < length; i++) {
        buffer[i] = 0.0;
    }
    for (ptrdiff_t u = first; u < first + taps; u++) {
        tier->row_sum(x + (start + u * s->dilation_h) * s->width, inside, buffer + s->left);
    }
    for (ptrdiff_t j = 0; j < out_w; j++) {
        const ptrdiff_t from = j * s->stride_w;
        const ptrdiff_t cols =
            s->count_include_pad ? taps_inside(from, s->kernel_w, s->dilation_w, s->width + s->left + s->right, &other)
                                 : taps_inside(from - s->left, s->kernel_w, s->dilation_w, s->width, &other);
        double sum = 0.0;
        for (ptrdiff_t v = 0; v < s->kernel_w; v++) {
            sum += buffer[from + v * s->dilation_w];
        }
        y[j] = (float)(sum / (double)(rows * cols));
    }
}

sl_status
sl_pool2d_f32(const sl_pool_shape *s, const float *x, sl_pool_kind kind, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    ptrdiff_t out_h, out_w, length, each;
    double *buffers = NULL;
    sl_status status = sl_pool_output_size(s, &out_h, &out_w);

    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || (kind != SL_POOL_MAX && kind != SL_POOL_MEAN)) {
        return SL_ERR_ARG;
    }
    n_threads = s->planes * s->height * s->width < (1 << 16) ? 1 : (int)sl_min(sl_threads(n_threads), s->planes);
    length = (out_w - 1) * s->stride_w + (s->kernel_w - 1) * s->dilation_w +
             1; /* of a padded row, as far as windows reach */
    length = length > s->left ? length : s->left;
    each = sl_round_up(length, 8);
    buffers = sl_alloc(n_threads * each, sizeof *buffers);
    if (buffers == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t plane = 0; plane < s->planes; plane++) {
        const float *from = x + plane * s->height * s->width;
        float *to = y + plane * out_h * out_w;
        double *buffer = buffers + thread_index() * each;
        for (ptrdiff_t i = 0; i < out_h; i++) {
            if (kind == SL_POOL_MAX) {
                max_row(s, tier, from, i, out_w, length, (float *)buffer, to + i * out_w);
            } else {
                mean_row(s, tier, from, i, out_w, length, buffer, to + i * out_w);
            }
        }
    }
    sl_free(buffers);
    return SL_OK;
}

static float
cell_mean(const sl_tier *tier, const float *x, ptrdiff_t width, ptrdiff_t row0, ptrdiff_t row1, ptrdiff_t col0,
          ptrdiff_t col1)
{
    double sum = 0.0;

    if (col0 == 0 && col1 == width) {
        sum = tier->reduce_sum(x + row0 * width, (row1 - row0) * width, 0);
    } else {
        for (ptrdiff_t i = row0; i < row1; i++) {
            for (ptrdiff_t j = col0; j < col1; j++) {
                sum += (double)x[i * width + j];
            }
        }
    }
    return (float)(sum / (double)((row1 - row0) * (col1 - col0)));
}

sl_status
sl_adaptive_mean_f32(const float *x, ptrdiff_t planes, ptrdiff_t height, ptrdiff_t width, ptrdiff_t out_h,
                     ptrdiff_t out_w, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (planes < 0 || height < 1 || width < 1 || out_h < 0 || out_w < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    n_threads = planes * height * width < (1 << 16) ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t plane = 0; plane < planes; plane++) {
        for (ptrdiff_t i = 0; i < out_h; i++) {
            for (ptrdiff_t j = 0; j < out_w; j++) {
                y[(plane * out_h + i) * out_w + j] = cell_mean(tier, x + plane * height * width, width,
                                                               i * height / out_h, sl_ceil_div((i + 1) * height, out_h),
                                                               j * width / out_w, sl_ceil_div((j + 1) * width, out_w));
            }
        }
    }
    return SL_OK;
}
