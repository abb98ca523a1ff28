/* Depthwise convolution: direct sums, vectorised over output columns.  Contract: sl_conv.h.  Inner loops: tier_depthwise_inl.h.
 *
 * A plane is done in bands of output rows: the input rows of a band are copied, padded and split by stride phase, into a buffer that stays in the
 * first-level cache, where every tap of a row of outputs is a run of neighbours. */
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl_conv_private.h"

enum { BAND_FLOATS = 5000 };

typedef struct {
    ptrdiff_t phases, positions, line; /* of a buffer row: positions per phase, floats in all */
    ptrdiff_t row_step, band,
        lines; /* buffer rows from one output row to the next; output rows and buffer rows of a band */
    ptrdiff_t buffer_floats, scratch_floats, work_floats;
} layout;

static layout
make_layout(const sl_conv_plan *p, const sl_tier *tier)
{
    const ptrdiff_t reach = (p->s.kernel_h - 1) * p->s.dilation_h + 1;
    layout l = {.phases = p->s.kernel_w == 1 ? 1 : p->s.stride_w, .row_step = p->s.kernel_h == 1 ? 1 : p->s.stride_h};

    l.positions = p->out_w + (p->s.kernel_w - 1) * p->s.dilation_w / p->s.stride_w;
    if (l.phases > 1) {
        l.positions = sl_round_up(l.positions, tier->lanes);
    }
    l.line = l.phases * l.positions;
    l.band = BAND_FLOATS / (l.line * l.row_step);
    l.band = sl_min(l.band < 4 ? 4 : l.band, p->out_h);
    l.lines = (l.band - 1) * l.row_step + reach;
    l.buffer_floats = sl_round_up(l.lines * l.line + tier->lanes, 16);
    l.scratch_floats = sl_round_up((l.positions + tier->lanes) * p->s.stride_w, 16);
    l.work_floats = l.buffer_floats + l.scratch_floats + sl_round_up(p->taps, 16);
    return l;
}

static void
fill_lines(const sl_conv_plan *p, const layout *l, const sl_tier *tier, const float *plane, ptrdiff_t first,
           ptrdiff_t rows, float *scratch, float *lines)
{
    const ptrdiff_t n = (rows - 1) * l->row_step + (p->s.kernel_h - 1) * p->s.dilation_h + 1;

    for (ptrdiff_t i = 0; i < n; i++, lines += l->line) {
        const ptrdiff_t y = (p->s.kernel_h == 1 ? (first + i) * p->s.stride_h : first * p->s.stride_h + i) - p->s.top;
        if (y < 0 || y >= p->s.height) {
            memset(lines, 0, (size_t)l->line * sizeof *lines);
        } else {
            tier->pad_row(plane + y * p->s.width, p->s.width, -p->s.left, p->s.stride_w, l->phases, l->positions,
                          scratch, lines);
        }
    }
}

/* Of the output rows first .. first + rows: those whose last vector may be stored whole, because it ends inside the plane.  What it overwrites there
 * belongs to rows that are stored later. */
static ptrdiff_t
whole_rows(const sl_conv_plan *p, const sl_tier *tier, ptrdiff_t first, ptrdiff_t rows)
{
    const ptrdiff_t until = p->pixels < tier->lanes   ? 0
                            : p->out_w >= tier->lanes ? p->out_h
                                                      : (p->pixels - tier->lanes) / p->out_w + 1;

    return until <= first ? 0 : sl_min(until - first, rows);
}

static void
run_plane(const sl_conv_plan *p, const layout *l, const sl_conv_args *args, const sl_tier *tier, ptrdiff_t plane,
          const ptrdiff_t *tap_column, float *work)
{
    const ptrdiff_t image = plane / p->s.outputs, output = plane % p->s.outputs;
    const float *x = args->x + (image * p->s.channels + output / p->out_g) * p->s.height * p->s.width;
    const float *addend = args->addend != NULL ? args->addend + plane * p->pixels : NULL;
    float *y = args->y + plane * p->pixels, *lines = work, *weights = work + l->buffer_floats + l->scratch_floats;
    sl_depthwise d = {.kernel_h = p->s.kernel_h,
                      .kernel_w = p->s.kernel_w,
                      .width = p->out_w,
                      .line = l->line,
                      .weights = weights,
                      .row_step = l->row_step * l->line,
                      .tap_row = p->s.dilation_h * l->line,
                      .tap_column = tap_column,
                      .bias = args->bias != NULL ? args->bias[output] : 0.0F};

    tier->map_variant(args->w + output * p->taps, p->taps, args->variant, weights);
    d.unit = l->row_step == 1 && l->phases == 1 && p->s.dilation_h == 1 && p->s.dilation_w == 1;
    d.relu = args->activation == SL_ACT_RELU ? 1 : args->activation == SL_ACT_RELU6 ? 2 : 0;
    for (ptrdiff_t i = 0; i < p->out_h; i += l->band) {
        const ptrdiff_t rows = sl_min(l->band, p->out_h - i);
        const ptrdiff_t whole = addend != NULL ? 0 : whole_rows(p, tier, i, rows);
        const float *more = addend != NULL ? addend + i * p->out_w : NULL;
        fill_lines(p, l, tier, x, i, rows, work + l->buffer_floats, lines);
        if (args->part.seen != SL_SEEN_PLAIN) {
            const ptrdiff_t n = (rows - 1) * l->row_step + (p->s.kernel_h - 1) * p->s.dilation_h + 1;
            tier->map_variant(lines, n * l->line, args->part, lines);
        }
        d.mode = SL_STORE_WHOLE;
        tier->depthwise(&d, lines, whole, NULL, y + i * p->out_w);
        d.mode = SL_STORE_EXACT;
        tier->depthwise(&d, lines + whole * d.row_step, rows - whole, more, y + (i + whole) * p->out_w);
        if (args->activation > SL_ACT_RELU6) {
            tier->map_activate(y + i * p->out_w, rows * p->out_w, args->activation, y + i * p->out_w);
        }
        if (args->finish != NULL) {
            tier->map_finish(args->finish, plane * p->pixels + i * p->out_w, rows * p->out_w, y + i * p->out_w);
        }
    }
}

sl_status
sl_conv_depthwise(const sl_conv_plan *p, const sl_conv_args *args, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    const layout l = make_layout(p, tier);
    const ptrdiff_t planes = p->s.batch * p->s.outputs;
    float *work = NULL;
    ptrdiff_t *tap_column = NULL;
    sl_status status = SL_OK;

    n_threads = (int)sl_min(n_threads, planes);
    work = sl_alloc(n_threads * l.work_floats, sizeof *work);
    tap_column = sl_alloc(p->s.kernel_w, sizeof *tap_column);
    if (work == NULL || tap_column == NULL) {
        status = SL_ERR_NOMEM;
        goto done;
    }
    for (ptrdiff_t v = 0; v < p->s.kernel_w; v++) {
        const ptrdiff_t reach = v * p->s.dilation_w;
        tap_column[v] = reach % p->s.stride_w * l.positions + reach / p->s.stride_w;
    }
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t plane = 0; plane < planes; plane++) {
#ifdef _OPENMP
        run_plane(p, &l, args, tier, plane, tap_column, work + omp_get_thread_num() * l.work_floats);
#else
        run_plane(p, &l, args, tier, plane, tap_column, work);
#endif
    }
done:
    sl_free(tap_column);
    sl_free(work);
    return status;
}
