/* Winograd's F(2 x 2, 3 x 3).  Contract: sl_winograd.h.  Transforms: tier_winograd_inl.h.
 *
 * The tiles of all pictures are cut into blocks of about 64: along a row of tiles where it is long enough, else running on over rows and pictures.  A
 * round takes as many blocks as its buffer holds.  First their values are transformed into panels of B, one set for each of the 16 points; then tasks
 * of (rows of outputs) x (a block) run the 16 products into a small buffer and transform that into y.  Rounds follow each other inside one
 * parallel region. */
#include "sl/sl_winograd.h"

#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_conv_private.h"

enum {
    POINTS = 16,
    BLOCK = 64,            /* tiles */
    DEPTH = 128,           /* channels of a block of the sums */
    ROWS = 72,             /* outputs of a task at most: 16 x 72 x 64 products = 300 kB */
    CHUNK = 16,            /* channels of a task of the first kind */
    VALUES = 1 << 18,      /* floats of transformed values of a round, per thread */
    SERIAL_BELOW = 1 << 20 /* fewer multiply-adds than this are not worth a second thread */
};

typedef struct {
    const sl_conv_plan *plan;
    const sl_conv_args *args;
    const sl_tier *tier;
    ptrdiff_t down, across;            /* tiles of a picture */
    ptrdiff_t tiles, blocks;           /* of all pictures */
    ptrdiff_t width, per_row;          /* tiles of a block; blocks of a row of tiles, or 0 where they run on */
    ptrdiff_t kblock, rows, row_tasks; /* rows: of a group, multiple of mr */
    ptrdiff_t slots;                   /* blocks of a round */
    ptrdiff_t point, panel, slot;      /* floats of a panel for one point, for all, and of a block */
    ptrdiff_t positions, patch,
        line; /* of a patch row per phase; floats of the patch and of a row before it is split */
    ptrdiff_t stage, products, product; /* floats of the staging panel, of all products of a task, of one point's */
    ptrdiff_t work;
} job;

/* Tiles of one row that are neighbours in a block. */
typedef struct {
    ptrdiff_t row, column, length, at; /* row counts over all pictures; at: in the block */
    ptrdiff_t patch_row;               /* first row of the patch that it reads */
} segment;

typedef struct {
    ptrdiff_t from, length, count;
    ptrdiff_t column, positions; /* of the patch */
    segment segments[BLOCK];
} block;

/* --- shapes and packed weights */

static ptrdiff_t
most(ptrdiff_t a, ptrdiff_t b)
{
    return a > b ? a : b;
}

static int
fits_shape(const sl_conv_shape *s)
{
    return s->kernel_h == 3 && s->kernel_w == 3 && s->stride_h == 1 && s->stride_w == 1 && s->dilation_h == 1 &&
           s->dilation_w == 1;
}

/* The plan of the convolution that is run: that of the shape, or of its adjoint. */
static sl_status
make_plan(const sl_conv_shape *shape, int back, sl_conv_plan *plan)
{
    const sl_status status = sl_conv_plan_make(shape, plan);

    if (status != SL_OK) {
        return status;
    }
    if (!fits_shape(shape)) {
        return SL_ERR_ARG;
    }
    if (back) {
        sl_conv_shape *s = &plan->s;
        s->channels = shape->outputs;
        s->outputs = shape->channels;
        s->height = plan->out_h;
        s->width = plan->out_w;
        s->top = 2 - shape->top; /* negative where outputs lie beyond the picture's reach */
        s->left = 2 - shape->left;
        plan->out_h = shape->height;
        plan->out_w = shape->width;
        sl_conv_plan_derive(plan);
        plan->flip = 1;
    }
    return SL_OK;
}

/* What the picture is does not matter to the weights. */
static sl_status
weight_plan(const sl_conv_shape *shape, int back, sl_conv_plan *plan)
{
    sl_conv_shape s = *shape;

    s.batch = 1;
    s.top = s.left = s.bottom = s.right = 0;
    s.height = s.kernel_h;
    s.width = s.kernel_w;
    return make_plan(&s, back, plan);
}

int
sl_winograd_pays(const sl_conv_shape *shape, int back)
{
    sl_conv_plan p;
    ptrdiff_t covered, pixels;

    if (make_plan(shape, back, &p) != SL_OK) {
        return 0;
    }
    pixels = p.pixels;
    covered = 4 * sl_ceil_div(p.out_h, 2) * sl_ceil_div(p.out_w, 2);
    return p.in_g >= 24 && p.out_g >= 24 && p.out_h >= 6 && p.out_w >= 6 && 3 * covered <= 4 * pixels;
}

static ptrdiff_t
kblock_of(const sl_conv_plan *p)
{
    return sl_ceil_div(p->in_g, sl_ceil_div(p->in_g, DEPTH));
}

static sl_pack_header
header_of(const sl_conv_plan *p, sl_variant variant)
{
    const sl_tier *tier = sl_tier_get();
    sl_pack_header header = {
        .kind = SL_PACK_WINOGRAD, .lanes = tier->lanes, .width = tier->mr, .kblock = (int32_t)kblock_of(p)};

    memcpy(header.magic, SL_PACK_MAGIC, sizeof header.magic);
    header.size[0] = p->s.outputs;
    header.size[1] = p->in_g;
    header.size[2] = p->s.groups;
    header.size[3] = 2 * (int64_t)variant.seen + p->flip;
    memcpy(&header.size[4], &variant.gamma, sizeof variant.gamma);
    return header;
}

static sl_status
packed_floats(const sl_conv_plan *p, ptrdiff_t *size)
{
    ptrdiff_t n;

    if (sl_mul(p->s.groups * sl_round_up(p->out_g, sl_tier_get()->mr), p->in_g, &n) < 0 ||
        sl_mul(n, POINTS * (ptrdiff_t)sizeof(float), &n) < 0 || n > PTRDIFF_MAX - SL_PACK_HEADER) {
        return SL_ERR_OVERFLOW;
    }
    *size = n / (ptrdiff_t)sizeof(float) + SL_PACK_HEADER;
    return SL_OK;
}

sl_status
sl_winograd_packed_size(const sl_conv_shape *shape, int back, ptrdiff_t *size)
{
    sl_conv_plan plan;
    const sl_status status = weight_plan(shape, back, &plan);

    return status == SL_OK ? packed_floats(&plan, size) : status;
}

/* Kernels [depth][9][mr] of the rows row0 .. of group g and its channels k0 .. k0 + depth, as the convolution that is run sees them. */
static void
gather_kernels(const sl_conv_plan *p, const sl_tier *tier, const float *w, ptrdiff_t g, ptrdiff_t row0, ptrdiff_t k0,
               ptrdiff_t depth, float *kernels)
{
    static const ptrdiff_t turned[] = {8, 7, 6, 5, 4, 3, 2, 1, 0};
    const ptrdiff_t rows = sl_min(tier->mr, p->out_g - row0);

    if (!p->flip) {
        tier->pack_a(w + ((g * p->out_g + row0) * p->in_g + k0) * 9, p->in_g * 9, rows, depth * 9, kernels);
        return;
    }
    for (ptrdiff_t k = 0; k < depth; k++) {
        const float *from = w + ((g * p->in_g + k0 + k) * p->out_g + row0) * 9;
        tier->pack_taps(from, 9, turned, 9, rows, kernels + k * 9 * tier->mr, 9 * tier->mr);
    }
}

sl_status
sl_winograd_pack_f32(const sl_conv_shape *shape, int back, const float *w, sl_variant variant, float *packed)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t mr = tier->mr;
    sl_conv_plan p;
    sl_pack_header header;
    float *kernels;
    const sl_status status = weight_plan(shape, back, &p);

    if (status != SL_OK) {
        return status;
    }
    if (!sl_variant_valid(variant, 0)) {
        return SL_ERR_ARG;
    }
    kernels = sl_alloc(kblock_of(&p) * 9 * mr, sizeof *kernels);
    if (kernels == NULL) {
        return SL_ERR_NOMEM;
    }
    header = header_of(&p, variant);
    memset(packed, 0, SL_PACK_HEADER * sizeof *packed);
    memcpy(packed, &header, sizeof header);
    packed += SL_PACK_HEADER;
    for (ptrdiff_t g = 0; g < p.s.groups; g++) {
        for (ptrdiff_t k0 = 0; k0 < p.in_g; k0 += kblock_of(&p)) {
            const ptrdiff_t depth = sl_min(kblock_of(&p), p.in_g - k0), rows = sl_round_up(p.out_g, mr);
            for (ptrdiff_t row = 0; row < p.out_g; row += mr) {
                gather_kernels(&p, tier, w, g, row, k0, depth, kernels);
                if (variant.seen != SL_SEEN_PLAIN) {
                    tier->map_variant(kernels, depth * 9 * mr, variant, kernels);
                }
                tier->tile_weights(kernels, depth, packed + row * depth, rows * depth);
            }
            packed += POINTS * rows * depth;
        }
    }
    sl_free(kernels);
    return SL_OK;
}

sl_status
sl_winograd_packed_check(const sl_conv_shape *shape, int back, sl_variant variant, const float *packed, ptrdiff_t size)
{
    sl_conv_plan plan;
    sl_pack_header header;
    ptrdiff_t expected;
    sl_status status = weight_plan(shape, back, &plan);

    if (status == SL_OK) {
        status = packed_floats(&plan, &expected);
    }
    if (status != SL_OK) {
        return status;
    }
    header = header_of(&plan, variant);
    return size == expected && memcmp(packed, &header, sizeof header) == 0 ? SL_OK : SL_ERR_ARG;
}

int
sl_winograd_packed(const float *packed)
{
    sl_pack_header header;

    memcpy(&header, packed, sizeof header);
    return memcmp(header.magic, SL_PACK_MAGIC, sizeof header.magic) == 0 && header.kind == SL_PACK_WINOGRAD;
}

/* --- how a call is cut */

static void
make_job(const sl_conv_plan *p, const sl_conv_args *args, int n_threads, job *d)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t lanes = tier->lanes, nr = tier->nr, budget = VALUES * (ptrdiff_t)n_threads;
    ptrdiff_t splits, panels, segments, pictures;

    *d = (job){.plan = p, .args = args, .tier = tier, .kblock = kblock_of(p)};
    d->down = sl_ceil_div(p->out_h, 2);
    d->across = sl_ceil_div(p->out_w, 2);
    d->tiles = p->s.batch * d->down * d->across;
    d->per_row = d->across >= BLOCK ? sl_ceil_div(d->across, BLOCK) : 0;
    d->width = sl_min(BLOCK, sl_round_up(d->per_row > 0 ? sl_ceil_div(d->across, d->per_row) : d->tiles, nr));
    d->blocks = d->per_row > 0 ? p->s.batch * d->down * d->per_row : sl_ceil_div(d->tiles, d->width);
    panels = d->width / nr;
    d->point =
        p->s.channels * nr + 16; /* not a power of two: the points' panels fall into different sets of the cache */
    d->panel = POINTS * d->point;
    d->slot = panels * d->panel;
    d->slots = sl_min(d->blocks, most(1, budget / d->slot));
    splits = sl_ceil_div(p->out_g, ROWS);
    while (splits < sl_ceil_div(p->out_g, 2 * tier->mr) && d->slots * p->s.groups * splits < 3 * (ptrdiff_t)n_threads &&
           n_threads > 1) {
        splits++;
    }
    d->rows = sl_round_up(sl_ceil_div(p->out_g, splits), tier->mr);
    d->row_tasks = sl_ceil_div(p->out_g, d->rows);
    d->positions = sl_round_up(sl_min(d->across, d->per_row > 0 ? d->width : d->across) + 1, lanes);
    segments = d->per_row > 0 ? 1 : (d->width - 1) / d->across + 2;
    pictures = d->per_row > 0 ? 1 : (d->width - 1) / (d->down * d->across) + 2;
    d->patch = sl_round_up(2 * (segments + pictures) * 2 * d->positions + 2 * lanes, 16);
    d->line = sl_round_up(2 * (d->positions + lanes), 16);
    d->stage = POINTS * (nr + lanes);
    d->product = d->rows * d->width + 16;
    d->products = POINTS * d->product + sl_round_up(lanes, 16) + 4 * (BLOCK + lanes); /* and two rows of outputs */
    d->work = sl_round_up(most(d->patch + d->line + d->stage, d->products), 16);
}

static void
find_block(const job *d, ptrdiff_t index, block *b)
{
    ptrdiff_t patch_row = 0;

    if (d->per_row > 0) {
        const ptrdiff_t column = index % d->per_row * d->width;
        b->from = index / d->per_row * d->across + column;
        b->length = sl_min(d->width, d->across - column);
    } else {
        b->from = index * d->width;
        b->length = sl_min(d->width, d->tiles - b->from);
    }
    b->count = 0;
    for (ptrdiff_t at = 0; at < b->length; b->count++) {
        const ptrdiff_t tile = b->from + at, row = tile / d->across, column = tile % d->across;
        if (b->count > 0) { /* the next picture begins with rows of its own */
            patch_row += row % d->down == 0 ? 4 : 2;
        }
        b->segments[b->count] = (segment){.row = row,
                                          .column = column,
                                          .length = sl_min(d->across - column, b->length - at),
                                          .at = at,
                                          .patch_row = patch_row};
        at += b->segments[b->count].length;
    }
    b->column = b->count == 1 ? b->segments[0].column : 0;
    b->positions = sl_round_up((b->count == 1 ? b->length : d->across) + 1, d->tier->lanes);
}

/* --- first kind of task: values */

/* The rows of one channel that a block reads, padded and split into even and odd columns. */
static void
fill_patch(const job *d, const block *b, ptrdiff_t channel, float *patch, float *line)
{
    const sl_conv_shape *s = &d->plan->s;
    const ptrdiff_t pitch = 2 * b->positions;
    ptrdiff_t done = 0;

    for (ptrdiff_t i = 0; i < b->count; i++) {
        const segment *g = &b->segments[i];
        const ptrdiff_t image = g->row / d->down, first = 2 * (g->row % d->down) - s->top;
        const float *plane = d->args->x + (image * s->channels + channel) * s->height * s->width;
        for (; done < g->patch_row + 4; done++) {
            const ptrdiff_t y = first + done - g->patch_row;
            if (y < 0 || y >= s->height) {
                memset(patch + done * pitch, 0, (size_t)pitch * sizeof *patch);
            } else {
                d->tier->pad_row(plane + y * s->width, s->width, 2 * b->column - s->left, 2, 2, b->positions, line,
                                 patch + done * pitch);
            }
        }
    }
    if (d->args->part.seen != SL_SEEN_PLAIN) {
        d->tier->map_variant(patch, done * pitch, d->args->part, patch);
    }
}

/* The patch of one channel into its place in all panels.  A panel that one segment fills is written directly, others through `stage`: whole vectors
 * would reach into the next channel's place. */
static void
transform_channel(const job *d, const block *b, const float *patch, float *stage, float *values)
{
    const ptrdiff_t nr = d->tier->nr, lanes = d->tier->lanes, pitch = 2 * b->positions, ld = nr + lanes;
    ptrdiff_t i = 0;

    for (ptrdiff_t at = 0; at < b->length; at += nr, values += d->panel) {
        const ptrdiff_t columns = sl_min(nr, b->length - at);
        const segment *g = &b->segments[i];
        const float *from = patch + g->patch_row * pitch + at - g->at + g->column - b->column;
        if (at >= g->at && g->at + g->length >= at + columns) {
            d->tier->tile_input(from, pitch, b->positions, columns, values, d->point);
        } else {
            for (ptrdiff_t q = at; q < at + columns;) {
                const ptrdiff_t length = sl_min(g->at + g->length, at + columns) - q;
                from = patch + g->patch_row * pitch + q - g->at + g->column - b->column;
                d->tier->tile_input(from, pitch, b->positions, length, stage + q - at, ld);
                q += length;
                if (q == g->at + g->length && q < at + columns) {
                    g = &b->segments[++i];
                }
            }
            for (ptrdiff_t point = 0; point < POINTS; point++) {
                memcpy(values + point * d->point, stage + point * ld, (size_t)nr * sizeof *values);
            }
        }
        if (at + columns == b->segments[i].at + b->segments[i].length) {
            i++;
        }
    }
}

static void
run_values(const job *d, ptrdiff_t index, ptrdiff_t chunk, float *values, float *work)
{
    const ptrdiff_t end = sl_min((chunk + 1) * CHUNK, d->plan->s.channels);
    float *patch = work, *line = patch + d->patch, *stage = line + d->line;
    block b;

    find_block(d, index, &b);
    for (ptrdiff_t channel = chunk * CHUNK; channel < end; channel++) {
        fill_patch(d, &b, channel, patch, line);
        transform_channel(d, &b, patch, stage, values + channel * d->tier->nr);
    }
}

/* --- second kind of task: products and outputs */

static void
multiply(const job *d, const block *b, ptrdiff_t group, ptrdiff_t row0, ptrdiff_t rows, const float *values,
         float *products)
{
    const sl_conv_plan *p = d->plan;
    const sl_tier *tier = d->tier;
    const ptrdiff_t all = sl_round_up(p->out_g, tier->mr), nr = tier->nr;
    const float *weights = d->args->packed + group * POINTS * all * p->in_g;

    for (ptrdiff_t point = 0; point < POINTS; point++) {
        for (ptrdiff_t k0 = 0; k0 < p->in_g; k0 += d->kblock) {
            const ptrdiff_t depth = sl_min(d->kblock, p->in_g - k0);
            const float *a = weights + POINTS * all * k0 + point * all * depth + row0 * depth,
                        *right = values + point * d->point + (group * p->in_g + k0) * nr;
            const sl_epilogue e = {.first = k0 == 0};
            for (ptrdiff_t at = 0; at < b->length; at += nr, right += d->panel) {
                tier->gemm_panel(a, rows, depth, right, nr, b->length - at > tier->lanes ? nr : tier->lanes,
                                 products + point * d->product + at, d->width, &e);
            }
        }
    }
}

/* A row of outputs, n of them, as all is done that is left to do with it. */
static void
store_row(const job *d, const float *line, ptrdiff_t offset, ptrdiff_t n)
{
    const sl_conv_args *args = d->args;
    float *y = args->y + offset;

    if (args->addend != NULL) {
        d->tier->map_add(line, args->addend + offset, n, args->activation, y);
    } else if (args->activation != SL_ACT_NONE) {
        d->tier->map_activate(line, n, args->activation, y);
    } else {
        memcpy(y, line, (size_t)n * sizeof *y);
    }
    if (args->finish != NULL) {
        d->tier->map_finish(args->finish, offset, n, y);
    }
}

static void
run_products(const job *d, ptrdiff_t index, ptrdiff_t group, ptrdiff_t row0, const float *values, float *products)
{
    const sl_conv_plan *p = d->plan;
    const ptrdiff_t rows = sl_min(d->rows, p->out_g - row0);
    float *top = products + POINTS * d->product + sl_round_up(d->tier->lanes, 16),
          *bottom = top + 2 * (BLOCK + d->tier->lanes);
    block b;

    find_block(d, index, &b);
    multiply(d, &b, group, row0, rows, values, products);
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t output = group * p->out_g + row0 + i;
        d->tier->tile_output(products + i * d->width, d->product, b.length,
                             d->args->bias != NULL ? d->args->bias[output] : 0.0F, top, bottom);
        for (ptrdiff_t q = 0; q < b.count; q++) {
            const segment *g = &b.segments[q];
            const ptrdiff_t y = 2 * (g->row % d->down), x = 2 * g->column, n = sl_min(2 * g->length, p->out_w - x);
            const ptrdiff_t offset = ((g->row / d->down * p->s.outputs + output) * p->out_h + y) * p->out_w + x;
            store_row(d, top + 2 * g->at, offset, n);
            if (y + 1 < p->out_h) {
                store_row(d, bottom + 2 * g->at, offset + p->out_w, n);
            }
        }
    }
}

/* The blocks from `first` on that a round holds; inside a parallel region, or outside with one thread. */
static void
run_round(const job *d, ptrdiff_t first, float *values, float *work)
{
    const ptrdiff_t some = sl_min(d->slots, d->blocks - first);
    const ptrdiff_t chunks = sl_ceil_div(d->plan->s.channels, CHUNK), parts = d->plan->s.groups * d->row_tasks;

#pragma omp for schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < some * chunks; task++) {
        run_values(d, first + task / chunks, task % chunks, values + task / chunks * d->slot, work);
    }
#pragma omp for schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < some * parts; task++) { /* neighbouring tasks share weights */
        const ptrdiff_t part = task / some, slot = task % some;
        run_products(d, first + slot, part / d->row_tasks, part % d->row_tasks * d->rows, values + slot * d->slot,
                     work);
    }
}

static sl_status
run(const sl_conv_shape *shape, int back, const sl_conv_args *args, int n_threads)
{
    sl_conv_args local = *args;
    sl_conv_plan plan;
    job d;
    float *values, *work;
    sl_status status = make_plan(shape, back, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (plan.s.batch == 0 || plan.pixels == 0) {
        return SL_OK;
    }
    local.packed += SL_PACK_HEADER;
    n_threads = plan.s.batch * plan.s.outputs * plan.pixels < SERIAL_BELOW / plan.k ? 1 : sl_threads(n_threads);
    make_job(&plan, &local, n_threads, &d);
    values = sl_alloc(d.slots * d.slot, sizeof *values);
    work = sl_alloc(n_threads * d.work, sizeof *work);
    if (values == NULL || work == NULL) {
        status = SL_ERR_NOMEM;
        goto done;
    }
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
    for (ptrdiff_t first = 0; first < d.blocks; first += d.slots) {
        run_round(&d, first, values, work + sl_thread_index() * d.work);
    }
done:
    sl_free(work);
    sl_free(values);
    return status;
}

sl_status
sl_winograd_call(const sl_conv_shape *shape, int back, const sl_conv_args *args, int n_threads)
{
    ptrdiff_t size = 0;
    sl_status status = sl_winograd_packed_size(shape, back, &size);

    if (status == SL_OK) {
        status = sl_winograd_packed_check(shape, back, args->variant, args->packed, size);
    }
    return status == SL_OK ? run(shape, back, args, n_threads) : status;
}
