/* The parameter contraction of a convolution, and sums per channel.  Contract: sl_contract.h.
 *
 * F (outputs, k) = S (outputs, pixels) * patches^T (pixels, k), block of pixels by block of pixels and picture by picture.  A task is a rectangle of F; it
 * packs the rows of S once per block, and panel after panel of patches, laid out row by row and transposed on the way.  Depthwise kernels are sums of
 * their own, in double. */
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_conv_private.h"

enum {
    SERIAL_BELOW = 1 << 20, /* fewer multiply-adds than this are not worth a second thread */
    PIXELS = 256,           /* most pixels of a block */
    ROWS = 360,             /* most outputs of a task: 360 x 256 floats stay in the second-level cache */
};

typedef struct {
    const sl_conv_plan *plan;
    const float *s, *x;
    float *f;
    ptrdiff_t block, row_step, col_step, row_tiles, col_tiles, tasks;
    ptrdiff_t left, rows, right, edge, line, work; /* floats of a thread's buffers, and of all */
    int direct;
} job;

static void
make_job(job *d, const sl_tier *tier, int n_threads)
{
    const sl_conv_plan *p = d->plan;
    const ptrdiff_t panels = sl_ceil_div(p->k, tier->nr), blocks = sl_ceil_div(p->pixels, PIXELS);
    ptrdiff_t per = sl_min(panels, 16);

    d->direct = p->taps == 1 && p->s.stride_h == 1 && p->s.stride_w == 1 &&
                (p->s.top | p->s.left | p->s.bottom | p->s.right) == 0;
    d->block = sl_ceil_div(p->pixels, blocks);
    d->row_tiles = sl_ceil_div(p->out_g, ROWS);
    d->row_step = sl_round_up(sl_ceil_div(p->out_g, d->row_tiles), tier->mr);
    while (per > 1 && p->s.groups * d->row_tiles * sl_ceil_div(panels, per) < 3 * (ptrdiff_t)n_threads) {
        per--;
    }
    d->col_step = per * tier->nr;
    d->col_tiles = sl_ceil_div(p->k, d->col_step);
    d->tasks = p->s.groups * d->row_tiles * d->col_tiles;
    d->left = sl_round_up(d->row_step * d->block, 16);
    d->rows = sl_round_up(tier->nr * d->block + tier->lanes, 16);
    d->right = sl_round_up(tier->nr * d->block, 16);
    d->edge = sl_round_up(d->row_step * tier->nr, 16);
    d->line = p->s.stride_w == 1 ? 0 : sl_round_up((p->out_w + tier->lanes) * p->s.stride_w, 16);
    d->work = d->left + d->rows + d->right + d->edge + d->line;
}

/* Row `index` of the patch matrix of one picture (a group's channels), pixels from .. from + n. */
static void
lay_out_row(const job *d, const sl_tier *tier, const float *x, ptrdiff_t index, ptrdiff_t from, ptrdiff_t n,
            float *line, float *dst)
{
    const sl_conv_plan *p = d->plan;
    const ptrdiff_t tap = index % p->taps, u = tap / p->s.kernel_w, v = tap % p->s.kernel_w;
    const float *plane = x + index / p->taps * p->s.height * p->s.width;

    for (ptrdiff_t q = from; q < from + n;) {
        const ptrdiff_t i = q / p->out_w, j = q % p->out_w, some = sl_min(p->out_w - j, from + n - q);
        const ptrdiff_t y = i * p->s.stride_h + u * p->s.dilation_h - p->s.top;
        if (y < 0 || y >= p->s.height) {
            memset(dst, 0, (size_t)some * sizeof *dst);
        } else {
            tier->pad_row(plane + y * p->s.width, p->s.width, j * p->s.stride_w + v * p->s.dilation_w - p->s.left,
                          p->s.stride_w, 1, some, line, dst);
        }
        dst += some;
        q += some;
    }
}

/* Adds (or, the first time, stores) one block of pixels of one picture to a rectangle of F. */
static void
run_block(const job *d, const sl_tier *tier, ptrdiff_t group, ptrdiff_t row0, ptrdiff_t column0, ptrdiff_t image,
          ptrdiff_t from, float *work)
{
    const sl_conv_plan *p = d->plan;
    const ptrdiff_t rows = sl_min(d->row_step, p->out_g - row0), n = sl_min(d->block, p->pixels - from),
                    plane = p->s.height * p->s.width, output = group * p->out_g + row0;
    const float *x = d->x + (image * p->s.channels + group * p->in_g) * plane;
    const sl_epilogue e = {.first = image == 0 && from == 0, .activation = SL_ACT_NONE};
    float *left = work, *lines = left + d->left, *right = lines + d->rows, *edge = right + d->right,
          *line = edge + d->edge;

    sl_gemm_pack_a(tier, d->s + (image * p->s.outputs + output) * p->pixels + from, p->pixels, rows, n, left);
    for (ptrdiff_t j = column0; j < sl_min(column0 + d->col_step, p->k); j += tier->nr) {
        const ptrdiff_t columns = sl_min(tier->nr, p->k - j);
        const sl_piece piece = {.column = 0, .length = columns, .offset = j};
        if (d->direct) {
            tier->pack_b(x + j * plane + from, plane, columns, n, right);
        } else {
            for (ptrdiff_t c = 0; c < columns; c++) {
                lay_out_row(d, tier, x, j + c, from, n, line, lines + c * n);
            }
            tier->pack_b(lines, n, columns, n, right);
        }
        sl_gemm_run_panel(tier, left, rows, n, right, tier->nr, &piece, 1, d->f + output * p->k, p->k, &e, edge);
    }
}

static void
run_task(const job *d, const sl_tier *tier, ptrdiff_t task, float *work)
{
    const ptrdiff_t column = task % d->col_tiles * d->col_step, row = task / d->col_tiles % d->row_tiles * d->row_step;

    for (ptrdiff_t image = 0; image < d->plan->s.batch; image++) {
        for (ptrdiff_t q = 0; q < d->plan->pixels; q += d->block) {
            run_block(d, tier, task / d->col_tiles / d->row_tiles, row, column, image, q, work);
        }
    }
}

/* Values of one axis' outputs that tap `offset` (its distance from the first output's window) finds inside: [*low, *high). */
static void
inside(ptrdiff_t offset, ptrdiff_t stride, ptrdiff_t size, ptrdiff_t outputs, ptrdiff_t *low, ptrdiff_t *high)
{
    *low = offset < 0 ? sl_min(sl_ceil_div(-offset, stride), outputs) : 0;
    *high = offset >= size ? 0 : sl_min((size - 1 - offset) / stride + 1, outputs);
}

/* The kernel of one output, each tap in double. */
static void
run_kernel(const job *d, const sl_tier *tier, ptrdiff_t output)
{
    const sl_conv_plan *p = d->plan;

    for (ptrdiff_t tap = 0; tap < p->taps; tap++) {
        const ptrdiff_t down = tap / p->s.kernel_w * p->s.dilation_h - p->s.top,
                        across = tap % p->s.kernel_w * p->s.dilation_w - p->s.left;
        ptrdiff_t top, bottom, left, right;
        double sum = 0.0;
        inside(down, p->s.stride_h, p->s.height, p->out_h, &top, &bottom);
        inside(across, p->s.stride_w, p->s.width, p->out_w, &left, &right);
        for (ptrdiff_t image = 0; image < p->s.batch && right > left; image++) {
            const float *s = d->s + (image * p->s.outputs + output) * p->pixels,
                        *x = d->x + (image * p->s.channels + output / p->out_g) * p->s.height * p->s.width;
            for (ptrdiff_t i = top; i < bottom; i++) {
                sum += tier->dot_double(s + i * p->out_w + left,
                                        x + (i * p->s.stride_h + down) * p->s.width + left * p->s.stride_w + across,
                                        p->s.stride_w, right - left);
            }
        }
        d->f[output * p->taps + tap] = (float)sum;
    }
}

sl_status
sl_conv_parameter_f32(const sl_conv_shape *shape, const float *s, const float *x, float *f, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    sl_conv_plan plan;
    job d = {.plan = &plan, .s = s, .x = x, .f = f};
    float *work;
    sl_status status = sl_conv_plan_make(shape, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1) {
        return SL_ERR_ARG;
    }
    if (shape->batch == 0) {
        memset(f, 0, (size_t)(shape->outputs * plan.k) * sizeof *f);
        return SL_OK;
    }
    n_threads = shape->batch * shape->outputs * plan.pixels < SERIAL_BELOW / plan.k ? 1 : sl_threads(n_threads);
    if (plan.depthwise) {
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
        for (ptrdiff_t output = 0; output < shape->outputs; output++) {
            run_kernel(&d, tier, output);
        }
        return SL_OK;
    }
    make_job(&d, tier, n_threads);
    n_threads = (int)sl_min(n_threads, d.tasks);
    work = sl_alloc(n_threads * d.work, sizeof *work);
    if (work == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < d.tasks; task++) {
        run_task(&d, tier, task, work + sl_thread_index() * d.work);
    }
    sl_free(work);
    return SL_OK;
}

sl_status
sl_channel_sum_f32(const float *s, const float *x, ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t n, float *f,
                   int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (batch < 0 || channels < 0 || n < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    n_threads = batch * channels * n < (1 << 16) ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t c = 0; c < channels; c++) {
        double sum = 0.0;
        for (ptrdiff_t b = 0; b < batch; b++) {
            const ptrdiff_t at = (b * channels + c) * n;
            sum += x != NULL ? tier->dot_double(s + at, x + at, 1, n) : tier->reduce_sum(s + at, n, 0);
        }
        f[c] = (float)sum;
    }
    return SL_OK;
}
