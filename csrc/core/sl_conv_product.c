/* Convolution as an implicit product of matrices.  Contract: sl_conv.h.
 *
 * C (outputs, columns) = W (outputs, k) * patches (k, columns), where the columns are the output pixels of all pictures in a row.  A task is a
 * rectangle of C.  For each block of K it copies the part of the picture it needs, padded and split by stride phase, into a small buffer, in
 * which every row of the patch matrix is a few runs of neighbours; panels are packed from there just before they are used.  1 x 1 kernels of stride 1
 * skip that buffer: the picture is the matrix. */
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_conv_private.h"
#include "sl_split_private.h"

/* How a call is cut into tasks, and what a task needs. */
typedef struct {
    ptrdiff_t columns;              /* batch * pixels */
    ptrdiff_t tile_cols, col_tiles; /* multiples of nr */
    ptrdiff_t tile_rows, row_tiles; /* of a group; multiples of mr */
    ptrdiff_t tasks;
    const sl_tiles *tiles; /* or NULL; then panels are split, through one more panel of floats */
    ptrdiff_t unit, stage_floats;
    ptrdiff_t slots; /* panels kept at a time: all of a tile, or 1 where each is used once */
    int direct;      /* the picture is the patch matrix */
    ptrdiff_t phases, row_step, tap_row, tap_reach; /* see patch_* below */
    ptrdiff_t lanes, patch_floats, line_floats, panel_floats, edge_floats, work_floats;
} cut;

typedef struct {
    float *panels, *patch, *line, *stage, *edge;
    ptrdiff_t *offsets;
    sl_run *runs;
    ptrdiff_t *first_run; /* (panels of a tile + 1) */
} workspace;

/* The output pixels [from, to) of a task, as one patch buffer sees them. */
typedef struct {
    ptrdiff_t from, to;
    ptrdiff_t col_from, positions; /* columns of the output covered, positions of a patch row per phase */
    ptrdiff_t pitch, channel;      /* floats of a patch row (all phases) and of a channel */
} region;

static double
task_cost(ptrdiff_t panels, ptrdiff_t rows, ptrdiff_t packing)
{
    return (double)panels * (double)(rows + packing) + 0.25 * (double)rows;
}

/* The cut with the smallest estimated time: tasks of equal size on n_threads threads, where each task packs its own panels. */
static void
choose_tiles(const sl_conv_plan *p, const sl_tier *tier, int n_threads, cut *t)
{
    static const int widths[] = {4, 6, 8, 10, 12, 16};
    const ptrdiff_t panels = sl_ceil_div(t->columns, tier->nr), row_panels = sl_ceil_div(p->out_g, t->unit);
    double best = 0.0;

    for (ptrdiff_t split = 1; split <= sl_min(row_panels, 2 * (ptrdiff_t)n_threads); split++) {
        const ptrdiff_t rows = sl_ceil_div(row_panels, split) * t->unit, row_tiles = sl_ceil_div(p->out_g, rows);
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            const ptrdiff_t col_tiles = sl_ceil_div(panels, widths[i]), width = sl_ceil_div(panels, col_tiles);
            const ptrdiff_t tasks = col_tiles * row_tiles * p->s.groups;
            const double cost =
                (double)sl_ceil_div(tasks, n_threads) * task_cost(width, sl_min(rows, p->out_g), t->direct ? 3 : 8);
            if (best == 0.0 || cost < best) {
                best = cost;
                t->tile_cols = width * tier->nr;
                t->tile_rows = rows;
            }
        }
    }
    t->col_tiles = sl_ceil_div(t->columns, t->tile_cols);
    t->row_tiles = sl_ceil_div(p->out_g, t->tile_rows);
    t->tasks = t->col_tiles * t->row_tiles * p->s.groups;
}

/* An upper bound of a patch buffer, for any place of the tile. */
static ptrdiff_t
patch_bound(const sl_conv_plan *p, const cut *t)
{
    const ptrdiff_t out_rows = sl_min((t->tile_cols - 1) / p->out_w + 2, p->s.batch * p->out_h);
    const ptrdiff_t parts = sl_min((t->tile_cols - 1) / p->pixels + 2, p->s.batch);
    const ptrdiff_t rows = out_rows * t->row_step + parts * ((p->s.kernel_h - 1) * t->tap_row + 1);
    const ptrdiff_t channels = p->taps > SL_GEMM_KC ? 2 : p->kblock / p->taps;

    return channels * rows * (p->out_w + t->tap_reach + t->lanes) * t->phases;
}

static sl_status
make_cut(const sl_conv_plan *p, const sl_tier *tier, int n_threads, cut *t)
{
    const sl_conv_shape *s = &p->s;

    t->columns = s->batch * p->pixels;
    t->lanes = tier->lanes;
    t->tiles = sl_tiles_get();
    t->unit = t->tiles != NULL ? SL_SPLIT_ROWS : tier->mr;
    t->direct = p->taps == 1 && s->stride_h == 1 && s->stride_w == 1 && s->top == 0 && s->left == 0 &&
                p->out_h == s->height && p->out_w == s->width;
    t->phases = s->kernel_w == 1 ? 1 : s->stride_w;
    t->row_step = s->kernel_h == 1 ? 1 : s->stride_h;
    t->tap_row = s->dilation_h;
    t->tap_reach = (s->kernel_w - 1) * s->dilation_w / s->stride_w;
    choose_tiles(p, tier, n_threads, t);
    t->slots = t->tile_rows > SL_GEMM_MC ? t->tile_cols / tier->nr : 1;
    t->panel_floats = sl_round_up(p->kblock * tier->nr + tier->nr, 16);
    t->patch_floats = t->direct ? 0 : sl_round_up(patch_bound(p, t) + tier->nr, 16);
    t->line_floats =
        t->direct || s->stride_w == 1 ? 0 : sl_round_up((p->out_w + t->tap_reach + 2 * tier->lanes) * s->stride_w, 16);
    t->edge_floats = sl_round_up(sl_min(t->tile_rows, SL_GEMM_MC + SL_MR_MAX) * tier->nr, 16);
    if (t->tiles != NULL) {
        t->stage_floats = t->panel_floats;
        t->panel_floats = sl_split_panel(p->kblock);
        t->edge_floats = sl_round_up(sl_split_work(p->kblock), 16);
    }
    t->work_floats = t->slots * t->panel_floats + t->patch_floats + t->line_floats + t->stage_floats + t->edge_floats;
    return SL_OK;
}

/* Columns [from, to) as runs of neighbours in x (direct) or in the patch buffer, cut at panels. */
static void
list_runs(const sl_conv_plan *p, const cut *t, const region *r, const float *base, ptrdiff_t nr, workspace *w)
{
    const ptrdiff_t line = t->direct ? p->pixels : p->out_w;
    const ptrdiff_t first_row = r->from / p->out_w, first_image = r->from / p->pixels;
    const ptrdiff_t halo = t->direct ? 0 : (p->s.kernel_h - 1) * t->tap_row + 1 - t->row_step;
    ptrdiff_t n = 0, panel = 0;

    for (ptrdiff_t q = r->from; q < r->to;) {
        const ptrdiff_t in_panel = (q - r->from) % nr, in_line = q % line;
        const ptrdiff_t length = sl_min(sl_min(line - in_line, nr - in_panel), r->to - q);
        const float *source;
        if (t->direct) {
            source = base + q / p->pixels * p->s.channels * p->pixels + in_line;
        } else { /* rows of earlier parts carry their halo */
            const ptrdiff_t row = (q / p->out_w - first_row) * t->row_step + (q / p->pixels - first_image) * halo;
            source = base + row * r->pitch + in_line - r->col_from;
        }
        if (in_panel == 0) {
            w->first_run[panel++] = n;
        }
        w->runs[n++] = (sl_run){.source = source, .column = in_panel, .length = length};
        q += length;
    }
    w->first_run[panel] = n;
}

/* What the rows k0 .. k0 + depth of the patch matrix add to a run's source. */
static void
list_offsets(const sl_conv_plan *p, const cut *t, const region *r, ptrdiff_t k0, ptrdiff_t depth, ptrdiff_t *offsets)
{
    const ptrdiff_t channel0 = k0 / p->taps;

    for (ptrdiff_t i = 0; i < depth; i++) {
        const ptrdiff_t channel = (k0 + i) / p->taps, order = (k0 + i) % p->taps;
        const ptrdiff_t tap = p->flip ? p->taps - 1 - order : order;
        if (t->direct) {
            offsets[i] = channel * p->pixels;
        } else {
            const ptrdiff_t row = tap / p->s.kernel_w * t->tap_row, reach = tap % p->s.kernel_w * p->s.dilation_w;
            const ptrdiff_t phase = reach % p->s.stride_w, shift = reach / p->s.stride_w;
            offsets[i] = (channel - channel0) * r->channel + row * r->pitch + phase * r->positions + shift;
        }
    }
}

/* Rows that the pixels [from, to) of one picture need of one channel. */
static float *
patch_part(const sl_conv_plan *p, const cut *t, const region *r, const sl_tier *tier, ptrdiff_t from, ptrdiff_t to,
           const float *channel, float *line, float *dst)
{
    const ptrdiff_t first = from / p->out_w, last = (to - 1) / p->out_w;
    const ptrdiff_t rows = (last - first) * t->row_step + (p->s.kernel_h - 1) * t->tap_row + 1;

    for (ptrdiff_t i = 0; i < rows; i++, dst += r->pitch) {
        const ptrdiff_t y = (p->s.kernel_h == 1 ? (first + i) * p->s.stride_h : first * p->s.stride_h + i) - p->s.top;
        if (y < 0 || y >= p->s.height) {
            memset(dst, 0, (size_t)r->pitch * sizeof *dst);
        } else {
            tier->pad_row(channel + y * p->s.width, p->s.width, r->col_from * p->s.stride_w - p->s.left, p->s.stride_w,
                          t->phases, r->positions, line, dst);
        }
    }
    return dst;
}

static void
fill_patch(const sl_conv_plan *p, const cut *t, const region *r, const sl_tier *tier, const float *x, sl_variant part,
           ptrdiff_t k0, ptrdiff_t depth, const workspace *w)
{
    const ptrdiff_t plane = p->s.height * p->s.width;
    float *patch = w->patch;

    for (ptrdiff_t channel = k0 / p->taps; channel <= (k0 + depth - 1) / p->taps; channel++) {
        for (ptrdiff_t q = r->from; q < r->to;) {
            const ptrdiff_t image = q / p->pixels, end = sl_min(r->to, (image + 1) * p->pixels);
            patch = patch_part(p, t, r, tier, q - image * p->pixels, end - image * p->pixels,
                               x + (image * p->s.channels + channel) * plane, w->line, patch);
            q = end;
        }
    }
    if (part.seen != SL_SEEN_PLAIN) {
        tier->map_variant(w->patch, patch - w->patch, part, w->patch);
    }
}

/* Floats of one channel of the patch. */
static ptrdiff_t
channel_floats(const sl_conv_plan *p, const cut *t, const region *r)
{
    ptrdiff_t rows = 0;

    for (ptrdiff_t q = r->from; q < r->to;) {
        const ptrdiff_t end = sl_min(r->to, (q / p->pixels + 1) * p->pixels);
        rows += ((end - 1) / p->out_w - q / p->out_w) * t->row_step + (p->s.kernel_h - 1) * t->tap_row + 1;
        q = end;
    }
    return rows * r->pitch;
}

static region
make_region(const sl_conv_plan *p, const cut *t, ptrdiff_t from, ptrdiff_t to)
{
    region r = {.from = from, .to = to, .col_from = 0, .positions = p->out_w + t->tap_reach};

    if (from / p->out_w == (to - 1) / p->out_w) { /* inside one row: only its columns */
        r.col_from = from % p->out_w;
        r.positions = to - from + t->tap_reach;
    }
    if (t->phases > 1) {
        r.positions = sl_round_up(r.positions, t->lanes);
    }
    r.pitch = r.positions * t->phases;
    r.channel = channel_floats(p, t, &r);
    return r;
}

/* A panel of the patch matrix into dst.  pack_runs reads up to a vector behind a run, and behind the last channel of x nothing may be read: the
 * last rows of a direct panel, as many as such a read can reach over, are copied to the float. */
static void
pack_panel(const sl_conv_plan *p, const cut *t, const sl_tier *tier, const workspace *w, ptrdiff_t panel,
           ptrdiff_t depth, float *dst)
{
    const sl_run *runs = w->runs + w->first_run[panel];
    const ptrdiff_t n = w->first_run[panel + 1] - w->first_run[panel];
    const ptrdiff_t exact = sl_min(depth, (t->lanes - 1 + p->pixels - 1) / p->pixels);

    if (runs[n - 1].column + runs[n - 1].length < tier->nr) { /* unused columns stay finite */
        memset(dst, 0, (size_t)(depth * tier->nr) * sizeof *dst);
    }
    if (!t->direct || (n == 1 && runs[0].length == tier->nr)) {
        tier->pack_runs(runs, n, w->offsets, depth, dst);
        return;
    }
    tier->pack_runs(runs, n, w->offsets, depth - exact, dst);
    for (ptrdiff_t k = depth - exact; k < depth; k++) {
        for (ptrdiff_t i = 0; i < n; i++) {
            memcpy(dst + k * tier->nr + runs[i].column, runs[i].source + w->offsets[k],
                   (size_t)runs[i].length * sizeof *dst);
        }
    }
}

/* Where the columns of a panel lie in y: neighbours up to the end of a picture. */
static ptrdiff_t
list_pieces(const sl_conv_plan *p, ptrdiff_t from, ptrdiff_t to, sl_piece pieces[SL_NR_MAX])
{
    ptrdiff_t n = 0;

    for (ptrdiff_t q = from; q < to; n++) {
        const ptrdiff_t image = q / p->pixels, pixel = q % p->pixels;
        pieces[n] = (sl_piece){.column = q - from,
                               .length = sl_min(p->pixels - pixel, to - q),
                               .offset = image * p->s.outputs * p->pixels + pixel};
        q += pieces[n].length;
    }
    return n;
}

/* The rest of the work on `rows` finished rows of y, row by row in pieces of neighbours. */
static void
finish_rows(const sl_conv_plan *p, const region *r, const sl_conv_args *args, const sl_tier *tier, ptrdiff_t output,
            ptrdiff_t rows)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t q = r->from; q < r->to;) {
            const ptrdiff_t image = q / p->pixels, end = sl_min(r->to, (image + 1) * p->pixels);
            const ptrdiff_t offset = (image * p->s.outputs + output + i) * p->pixels + q - image * p->pixels;
            tier->map_finish(args->finish, offset, end - q, args->y + offset);
            q = end;
        }
    }
}

/* Packed weights of a group from output row0 and term k0 on. */
static const float *
left_panels(const sl_conv_plan *p, const cut *t, const sl_conv_args *args, const sl_tier *tier, ptrdiff_t group,
            ptrdiff_t row0, ptrdiff_t k0, ptrdiff_t depth)
{
    if (t->tiles != NULL) {
        const ptrdiff_t panels = sl_ceil_div(p->out_g, SL_SPLIT_ROWS), blocks = sl_ceil_div(p->k, p->kblock);
        return args->packed +
               ((group * blocks + k0 / p->kblock) * panels + row0 / SL_SPLIT_ROWS) * sl_split_panel(p->kblock);
    }
    return args->packed + (group * p->k + k0) * sl_round_up(p->out_g, tier->mr) + row0 * depth;
}

/* One block of K of one task. */
static void
run_block(const sl_conv_plan *p, const cut *t, const sl_conv_args *args, const sl_tier *tier, const region *r,
          ptrdiff_t group, ptrdiff_t row0, ptrdiff_t k0, workspace *w)
{
    const ptrdiff_t depth = sl_min(p->kblock, p->k - k0), rows = sl_min(t->tile_rows, p->out_g - row0), nr = tier->nr;
    const float *a = left_panels(p, t, args, tier, group, row0, k0, depth);
    const ptrdiff_t step = SL_GEMM_MC / t->unit * t->unit, split = sl_split_panel(p->kblock);
    sl_piece pieces[SL_NR_MAX];

    for (ptrdiff_t i = 0; i < rows; i += step) {
        const ptrdiff_t output = group * p->out_g + row0 + i;
        const sl_epilogue e = {.bias_row = args->bias != NULL ? args->bias + output : NULL,
                               .addend = args->addend != NULL ? args->addend + output * p->pixels : NULL,
                               .ld_addend = p->pixels,
                               .first = k0 == 0,
                               .last = k0 + depth == p->k,
                               .activation = args->activation};
        for (ptrdiff_t q = r->from, panel = 0; q < r->to; q += nr, panel++) {
            float *packed = w->panels + (t->slots > 1 ? panel : 0) * t->panel_floats;
            const ptrdiff_t n = list_pieces(p, q, sl_min(q + nr, r->to), pieces);
            if (i == 0) {
                float *floats = t->tiles != NULL ? w->stage : packed;
                pack_panel(p, t, tier, w, panel, depth, floats);
                if (t->direct && args->part.seen != SL_SEEN_PLAIN) {
                    tier->map_variant(floats, depth * nr, args->part, floats);
                }
                if (t->tiles != NULL) {
                    t->tiles->split_right(floats, nr, sl_min(nr, r->to - q), depth, packed);
                }
            }
            if (t->tiles != NULL) {
                t->tiles->run_panel(t->tiles, tier, a + i / t->unit * split, split, sl_min(step, rows - i), depth,
                                    packed, pieces, n, args->y + output * p->pixels, p->pixels, &e, w->edge);
                continue;
            }
            sl_gemm_run_panel(tier, a + i * depth, sl_min(step, rows - i), depth, packed, nr, pieces, n,
                              args->y + output * p->pixels, p->pixels, &e, w->edge);
        }
        if (e.last && args->finish != NULL) {
            finish_rows(p, r, args, tier, output, sl_min(step, rows - i));
        }
    }
}

static void
run_task(const sl_conv_plan *p, const cut *t, const sl_conv_args *args, const sl_tier *tier, ptrdiff_t task,
         workspace *w)
{
    const ptrdiff_t row_tile = task % t->row_tiles, group = task / t->row_tiles % p->s.groups,
                    col_tile = task / t->row_tiles / p->s.groups;
    const ptrdiff_t from = col_tile * t->tile_cols;
    const region r = make_region(p, t, from, sl_min(from + t->tile_cols, t->columns));
    const float *x = args->x + group * p->in_g * p->s.height * p->s.width;

    list_runs(p, t, &r, t->direct ? x : w->patch, tier->nr, w);
    for (ptrdiff_t k0 = 0; k0 < p->k; k0 += p->kblock) {
        const ptrdiff_t depth = sl_min(p->kblock, p->k - k0);
        list_offsets(p, t, &r, k0, depth, w->offsets);
        if (!t->direct) {
            fill_patch(p, t, &r, tier, x, args->part, k0, depth, w);
        }
        run_block(p, t, args, tier, &r, group, row_tile * t->tile_rows, k0, w);
    }
}

sl_status
sl_conv_product(const sl_conv_plan *p, const sl_conv_args *args, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    cut t = {0};
    float *work = NULL;
    ptrdiff_t *index = NULL;
    sl_run *runs = NULL;
    ptrdiff_t index_each, run_each;
    sl_status status = make_cut(p, tier, n_threads, &t);

    if (status != SL_OK) {
        return status;
    }
    n_threads = (int)sl_min(n_threads, t.tasks);
    run_each = t.tile_cols;
    index_each = sl_round_up(p->kblock + t.tile_cols / tier->nr + 1, 8);
    work = sl_alloc(n_threads * t.work_floats, sizeof *work);
    index = sl_alloc(n_threads * index_each, sizeof *index);
    runs = sl_alloc(n_threads * run_each, sizeof *runs);
    if (work == NULL || index == NULL || runs == NULL) {
        status = SL_ERR_NOMEM;
        goto done;
    }
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
    {
        if (t.tiles != NULL) {
            t.tiles->begin();
        }
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t task = 0; task < t.tasks; task++) {
            const ptrdiff_t me = sl_thread_index();
            workspace w = {
                .panels = work + me * t.work_floats, .offsets = index + me * index_each, .runs = runs + me * run_each};
            w.patch = w.panels + t.slots * t.panel_floats;
            w.line = w.patch + t.patch_floats;
            w.stage = w.line + t.line_floats;
            w.edge = w.stage + t.stage_floats;
            w.first_run = w.offsets + p->kblock;
            run_task(p, &t, args, tier, task, &w);
        }
        if (t.tiles != NULL) {
            t.tiles->end();
        }
    }
done:
    sl_free(runs);
    sl_free(index);
    sl_free(work);
    return status;
}
