/* Adjoints of activations and pooling.  Contract: sl_adjoint.h.  Inner loops: tier_adjoint_inl.h. */
#include "sl/sl_adjoint.h"

#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"

enum {
    BLOCK = 1 << 14,       /* floats of a block: what one thread takes at a time */
    SERIAL_BELOW = 1 << 16 /* fewer floats than this are not worth a second thread */
};

sl_status
sl_activate_adjoint_f32(const float *saved, const float *s, ptrdiff_t n, sl_activation activation, float *g,
                        int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (n < 0 || n_threads < 1 || (int)activation < SL_ACT_NONE || (int)activation > SL_ACT_LAST) {
        return SL_ERR_ARG;
    }
    n_threads = n < SERIAL_BELOW ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < n; i += BLOCK) {
        tier->map_slope(saved + i, s + i, sl_min(BLOCK, n - i), activation, g + i);
    }
    return SL_OK;
}

/* Taps from `start` that lie in [0, size): [*first, *end). */
static void
inside(ptrdiff_t start, ptrdiff_t kernel, ptrdiff_t dilation, ptrdiff_t size, ptrdiff_t *first, ptrdiff_t *end)
{
    *first = start < 0 ? sl_min(kernel, sl_ceil_div(-start, dilation)) : 0;
    *end = start >= size ? 0 : sl_min(kernel, (size - 1 - start) / dilation + 1);
}

/* One window of one plane; column and row say where it begins, the taps inside are [u0, u1) x [v0, v1). */
static void
max_window(const sl_pool_shape *p, const float *x, ptrdiff_t row, ptrdiff_t column, const ptrdiff_t u[2],
           const ptrdiff_t v[2], float s, float *g)
{
    ptrdiff_t best = -1;
    float top = 0.0F;

    for (ptrdiff_t i = u[0]; i < u[1]; i++) {
        const ptrdiff_t line = (row + i * p->dilation_h) * p->width + column;
        for (ptrdiff_t j = v[0]; j < v[1]; j++) {
            const float value = x[line + j * p->dilation_w];
            if (best < 0 || value > top || (value != value && top == top)) {
                best = line + j * p->dilation_w;
                top = value;
            }
        }
    }
    if (best >= 0) {
        g[best] += s;
    }
}

/* A window of 3 x 3 neighbours inside the picture, without branches: the first largest, or the first NaN, gets s. */
static void
max_nine(const float *x, ptrdiff_t width, float s, float *g)
{
    float top = x[0];
    ptrdiff_t best = 0;

    for (ptrdiff_t i = 0; i < 3; i++) {
        for (ptrdiff_t j = 0; j < 3; j++) {
            const float value = x[i * width + j];
            const int better = (value > top) | ((value != value) & (top == top));
            top = better ? value : top;
            best = better ? i * width + j : best;
        }
    }
    g[best] += s;
}

static void
mean_window(const sl_pool_shape *p, ptrdiff_t row, ptrdiff_t column, const ptrdiff_t u[2], const ptrdiff_t v[2],
            float share, float *g)
{
    for (ptrdiff_t i = u[0]; i < u[1]; i++) {
        float *line = g + (row + i * p->dilation_h) * p->width + column;
        for (ptrdiff_t j = v[0]; j < v[1]; j++) {
            line[j * p->dilation_w] += share;
        }
    }
}

/* 2 x 2 windows of stride 2 without padding: those of VGG and its relatives. */
static void
max_pairs(const float *x, ptrdiff_t width, const float *s, ptrdiff_t out_w, float *g)
{
    for (ptrdiff_t j = 0; j < out_w; j++) {
        const float a = x[2 * j], b = x[2 * j + 1], c = x[width + 2 * j], d = x[width + 2 * j + 1], value = s[j];
        const int second = b > a || b != b, fourth = d > c || d != d;
        const float upper = second ? b : a, lower = fourth ? d : c;
        const int down = (lower > upper || lower != lower) && upper == upper;
        const int one = second && a == a, three = fourth && c == c;

        g[2 * j] = !down && !one ? value : 0.0F;
        g[2 * j + 1] = !down && one ? value : 0.0F;
        g[width + 2 * j] = down && !three ? value : 0.0F;
        g[width + 2 * j + 1] = down && three ? value : 0.0F;
    }
}

static void
pool_row(const sl_pool_shape *p, const float *x, const float *s, sl_pool_kind kind, ptrdiff_t i, ptrdiff_t out_w,
         float *g)
{
    const ptrdiff_t row = i * p->stride_h - p->top;
    const int nine = kind == SL_POOL_MAX && p->kernel_h == 3 && p->kernel_w == 3 && p->dilation_h == 1 &&
                     p->dilation_w == 1 && row >= 0 && row + 3 <= p->height;
    ptrdiff_t u[2], v[2], other[2], rows, columns;

    inside(row, p->kernel_h, p->dilation_h, p->height, &u[0], &u[1]);
    inside(row + p->top, p->kernel_h, p->dilation_h, p->height + p->top + p->bottom, &other[0], &other[1]);
    rows = p->count_include_pad ? other[1] - other[0] : u[1] - u[0];
    for (ptrdiff_t j = 0; j < out_w; j++) {
        const ptrdiff_t column = j * p->stride_w - p->left;
        if (nine && column >= 0 && column + 3 <= p->width) {
            max_nine(x + row * p->width + column, p->width, s[j], g + row * p->width + column);
            continue;
        }
        inside(column, p->kernel_w, p->dilation_w, p->width, &v[0], &v[1]);
        if (kind == SL_POOL_MAX) {
            max_window(p, x, row, column, u, v, s[j], g);
            continue;
        }
        inside(column + p->left, p->kernel_w, p->dilation_w, p->width + p->left + p->right, &other[0], &other[1]);
        columns = p->count_include_pad ? other[1] - other[0] : v[1] - v[0];
        mean_window(p, row, column, u, v, (float)((double)s[j] / (double)(rows * columns)), g);
    }
}

sl_status
sl_pool2d_adjoint_f32(const sl_pool_shape *p, const float *x, const float *s, sl_pool_kind kind, float *g,
                      int n_threads)
{
    ptrdiff_t out_h, out_w;
    const sl_status status = sl_pool_output_size(p, &out_h, &out_w);
    const int pairs = kind == SL_POOL_MAX && p->kernel_h == 2 && p->kernel_w == 2 && p->stride_h == 2 &&
                      p->stride_w == 2 && p->dilation_h == 1 && p->dilation_w == 1 && (p->top | p->left) == 0;

    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || (kind != SL_POOL_MAX && kind != SL_POOL_MEAN)) {
        return SL_ERR_ARG;
    }
    n_threads = p->planes * p->height * p->width < SERIAL_BELOW ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t plane = 0; plane < p->planes; plane++) {
        const float *from = x != NULL ? x + plane * p->height * p->width : NULL;
        float *to = g + plane * p->height * p->width;
        const int exact = pairs && 2 * out_h <= p->height && 2 * out_w <= p->width;
        if (!exact || 2 * out_h < p->height || 2 * out_w < p->width) {
            memset(to, 0, (size_t)(p->height * p->width) * sizeof *to);
        }
        for (ptrdiff_t i = 0; i < out_h; i++) {
            const float *row = s + (plane * out_h + i) * out_w;
            if (exact) {
                max_pairs(from + 2 * i * p->width, p->width, row, out_w, to + 2 * i * p->width);
            } else {
                pool_row(p, from, row, kind, i, out_w, to);
            }
        }
    }
    return SL_OK;
}

sl_status
sl_adaptive_mean_adjoint_f32(const float *s, ptrdiff_t planes, ptrdiff_t height, ptrdiff_t width, ptrdiff_t out_h,
                             ptrdiff_t out_w, float *g, int n_threads)
{
    if (planes < 0 || height < 1 || width < 1 || out_h < 0 || out_w < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    n_threads = planes * height * width < SERIAL_BELOW ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t plane = 0; plane < planes; plane++) {
        float *to = g + plane * height * width;
        memset(to, 0, (size_t)(height * width) * sizeof *to);
        for (ptrdiff_t i = 0; i < out_h; i++) {
            const ptrdiff_t row0 = i * height / out_h, row1 = sl_ceil_div((i + 1) * height, out_h);
            for (ptrdiff_t j = 0; j < out_w; j++) {
                const ptrdiff_t col0 = j * width / out_w, col1 = sl_ceil_div((j + 1) * width, out_w);
                const float share =
                    (float)((double)s[(plane * out_h + i) * out_w + j] / (double)((row1 - row0) * (col1 - col0)));
                for (ptrdiff_t r = row0; r < row1; r++) {
                    for (ptrdiff_t c = col0; c < col1; c++) {
                        to[r * width + c] += share;
                    }
                }
            }
        }
    }
    return SL_OK;
}
