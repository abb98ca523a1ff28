/* The adjoint of a convolution.  Contract: sl_contract.h.
 *
 * Along one axis, position y of the input gets s[i] V[u] from every pair with y + before = i stride + u dilation.  For a remainder r of y + before
 * modulo the stride, the taps with u dilation = r (mod stride) are every (stride / gcd)-th, and neighbouring ones of them meet outputs that are
 * dilation / gcd apart: a convolution of stride 1 with those taps in reverse.  Remainders of both axes are walked one after the other, each into
 * an array of its own, and interleaved. */
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl/sl_winograd.h"
#include "sl_conv_private.h"
#include "sl_split_private.h"

enum { SERIAL_BELOW = 1 << 20 }; /* fewer multiply-adds than this are not worth a second thread */

/* One remainder along one axis. */
typedef struct {
    ptrdiff_t count;               /* of its positions: first, first + stride, ... */
    ptrdiff_t tap, tap_step, taps; /* its taps: tap, tap + tap_step, ... */
    ptrdiff_t dilation, before; /* of the convolution of stride 1; before may be negative: then outputs are left out */
} axis_phase;

static ptrdiff_t
greatest_divisor(ptrdiff_t a, ptrdiff_t b)
{
    while (b != 0) {
        const ptrdiff_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The remainder of position `first` < min(stride, size). */
static axis_phase
make_axis(ptrdiff_t size, ptrdiff_t before, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t first)
{
    const ptrdiff_t divisor = greatest_divisor(stride, dilation), r = (first + before) % stride;
    axis_phase a = {
        .count = (size - 1 - first) / stride + 1, .tap_step = stride / divisor, .dilation = dilation / divisor};

    while (a.tap < kernel && a.tap * dilation % stride != r) {
        if (++a.tap >= a.tap_step) {
            a.tap = kernel; /* no tap reaches this remainder */
        }
    }
    if (a.tap < kernel) {
        a.taps = (kernel - 1 - a.tap) / a.tap_step + 1;
        a.before = (a.taps - 1) * a.dilation - (first + before - a.tap * dilation) / stride;
    }
    return a;
}

/* Everything about one remainder of both axes. */
typedef struct {
    axis_phase rows, columns;
    sl_conv_plan plan; /* of the convolution of stride 1, where there are taps and positions */
    int used;
} phase;

static phase
make_phase(const sl_conv_plan *forward, ptrdiff_t index)
{
    const sl_conv_shape *s = &forward->s;
    const ptrdiff_t across = sl_min(s->stride_w, s->width);
    phase p = {.rows = make_axis(s->height, s->top, s->kernel_h, s->stride_h, s->dilation_h, index / across),
               .columns = make_axis(s->width, s->left, s->kernel_w, s->stride_w, s->dilation_w, index % across)};

    p.used = p.rows.taps > 0 && p.columns.taps > 0;
    if (p.used) {
        p.plan.s = (sl_conv_shape){.batch = s->batch,
                                   .channels = s->outputs,
                                   .height = forward->out_h,
                                   .width = forward->out_w,
                                   .outputs = s->channels,
                                   .kernel_h = p.rows.taps,
                                   .kernel_w = p.columns.taps,
                                   .stride_h = 1,
                                   .stride_w = 1,
                                   .dilation_h = p.rows.dilation,
                                   .dilation_w = p.columns.dilation,
                                   .top = p.rows.before,
                                   .left = p.columns.before,
                                   .groups = s->groups};
        p.plan.out_h = p.rows.count;
        p.plan.out_w = p.columns.count;
        sl_conv_plan_derive(&p.plan);
        p.plan.depthwise = p.plan.in_g == 1 && p.plan.out_g == 1;
        p.plan.flip = 1;
    }
    return p;
}

static ptrdiff_t
phases_of(const sl_conv_plan *forward) /* by first row and column */
{
    return sl_min(forward->s.stride_h, forward->s.height) * sl_min(forward->s.stride_w, forward->s.width);
}

static int
is_depthwise(const sl_conv_plan *forward)
{
    return forward->in_g == 1 && forward->out_g == 1;
}

/* --- packed weights */

/* Number of the phase's tap t, in ascending order, in the whole kernel. */
static ptrdiff_t
tap_of(const sl_conv_plan *forward, const phase *p, ptrdiff_t t)
{
    const ptrdiff_t u = t / p->columns.taps, v = t % p->columns.taps;

    return (p->rows.tap + u * p->rows.tap_step) * forward->s.kernel_w + p->columns.tap + v * p->columns.tap_step;
}

/* Split panels of the input channels of one group, as rows along (output, tap). */
static void
split_group(const sl_conv_plan *forward, const phase *p, const float *group, sl_variant variant, const ptrdiff_t *taps,
            float *to)
{
    const sl_tiles *tiles = sl_tiles_get();
    const ptrdiff_t channels = forward->in_g, count = p->plan.taps, panel = sl_split_panel(p->plan.kblock);
    float stage[SL_SPLIT_ROWS * SL_GEMM_KC];

    for (ptrdiff_t k0 = 0; k0 < p->plan.k; k0 += p->plan.kblock) {
        const ptrdiff_t depth = sl_min(p->plan.kblock, p->plan.k - k0);
        for (ptrdiff_t c = 0; c < channels; c += SL_SPLIT_ROWS, to += panel) {
            const ptrdiff_t some = sl_min(SL_SPLIT_ROWS, channels - c);
            memset(to, 0, (size_t)panel * sizeof *to);
            for (ptrdiff_t r = 0; r < some; r++) {
                for (ptrdiff_t i = 0; i < depth; i++) {
                    const ptrdiff_t o = (k0 + i) / count, t = (k0 + i) % count;
                    stage[r * depth + i] = group[(o * channels + c + r) * forward->taps + taps[t]];
                }
            }
            if (variant.seen != SL_SEEN_PLAIN) {
                sl_tier_get()->map_variant(stage, some * depth, variant, stage);
            }
            tiles->split_left(stage, depth, some, depth, to);
        }
    }
}

/* Panels [k][mr] of the input channels of each group.  The weights are read in their own order, output by output. */
static void
pack_phase(const sl_conv_plan *forward, const phase *p, const float *w, sl_variant variant, ptrdiff_t *taps,
           float *packed)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t channels = forward->in_g, mr = tier->mr, rows = sl_round_up(channels, mr), count = p->plan.taps,
                    next = channels * forward->taps;

    for (ptrdiff_t t = 0; t < count; t++) {
        taps[t] = tap_of(forward, p, t);
    }
    for (ptrdiff_t g = 0; g < forward->s.groups; g++) {
        const float *group = w + g * forward->out_g * next;
        if (sl_tiles_get() != NULL) {
            split_group(forward, p, group, variant, taps,
                        packed + g * (sl_conv_panel_floats(&p->plan) / forward->s.groups));
            continue;
        }
        for (ptrdiff_t k0 = 0; k0 < p->plan.k; k0 += p->plan.kblock) {
            const ptrdiff_t depth = sl_min(p->plan.kblock, p->plan.k - k0);
            float *to = packed + (g * p->plan.k + k0) * rows;
            for (ptrdiff_t i = 0; i < depth;) {
                const ptrdiff_t o = (k0 + i) / count, t = (k0 + i) % count, n = sl_min(count - t, depth - i);
                tier->pack_taps(group + o * next, forward->taps, taps + t, n, channels, to + i * mr, depth * mr);
                i += n;
            }
            if (variant.seen != SL_SEEN_PLAIN) {
                tier->map_variant(to, rows * depth, variant, to);
            }
        }
    }
}

static sl_pack_header
header_of(const sl_conv_plan *forward, sl_variant variant)
{
    const sl_tier *tier = sl_tier_get();
    const sl_conv_shape *s = &forward->s;
    const ptrdiff_t parts[] = {s->kernel_h,
                               s->kernel_w,
                               s->stride_h,
                               s->stride_w,
                               s->dilation_h,
                               s->dilation_w,
                               s->top % s->stride_h,
                               s->left % s->stride_w,
                               sl_min(s->stride_h, s->height),
                               sl_min(s->stride_w, s->width)};
    sl_pack_header header = {
        .kind = SL_PACK_ADJOINT, .lanes = tier->lanes, .width = tier->mr, .kblock = (int32_t)variant.seen};
    uint64_t form = 0;

    memcpy(header.magic, SL_PACK_MAGIC, sizeof header.magic);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        form = form * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)parts[i];
    }
    header.size[0] = s->outputs;
    header.size[1] = forward->in_g;
    header.size[2] = (int64_t)(form >> 1);
    header.size[3] = s->groups;
    memcpy(&header.size[4], &variant.gamma, sizeof variant.gamma);
    sl_split_mark(&header);
    return header;
}

static ptrdiff_t
packed_floats(const sl_conv_plan *forward)
{
    ptrdiff_t n = SL_PACK_HEADER;

    for (ptrdiff_t i = 0; i < phases_of(forward); i++) {
        const phase p = make_phase(forward, i);
        n += p.used ? sl_conv_panel_floats(&p.plan) : 0;
    }
    return n;
}

static sl_status
pack_all(const sl_conv_plan *forward, const float *w, sl_variant variant, float *packed)
{
    const sl_pack_header header = header_of(forward, variant);
    float *to = packed + SL_PACK_HEADER;
    ptrdiff_t *taps = sl_alloc(forward->taps, sizeof *taps);

    if (taps == NULL) {
        return SL_ERR_NOMEM;
    }
    memset(packed, 0, SL_PACK_HEADER * sizeof *packed);
    memcpy(packed, &header, sizeof header);
    for (ptrdiff_t i = 0; i < phases_of(forward); i++) {
        const phase p = make_phase(forward, i);
        if (p.used) {
            pack_phase(forward, &p, w, variant, taps, to);
            to += sl_conv_panel_floats(&p.plan);
        }
    }
    sl_free(taps);
    return SL_OK;
}

sl_status
sl_conv_adjoint_packed_size(const sl_conv_shape *shape, ptrdiff_t *size)
{
    sl_conv_plan forward;
    const sl_status status = sl_conv_plan_make(shape, &forward);

    if (status == SL_OK) {
        *size = is_depthwise(&forward) ? 0 : packed_floats(&forward);
    }
    return status;
}

sl_status
sl_conv_adjoint_pack_f32(const sl_conv_shape *shape, const float *w, sl_variant variant, float *packed)
{
    sl_conv_plan forward;
    const sl_status status = sl_conv_plan_make(shape, &forward);

    if (status != SL_OK) {
        return status;
    }
    if (is_depthwise(&forward) || !sl_variant_valid(variant, 0)) {
        return SL_ERR_ARG;
    }
    return pack_all(&forward, w, variant, packed);
}

sl_status
sl_conv_adjoint_packed_check(const sl_conv_shape *shape, sl_variant variant, const float *packed, ptrdiff_t size)
{
    sl_conv_plan forward;
    sl_pack_header header;
    const sl_status status = sl_conv_plan_make(shape, &forward);

    if (status != SL_OK) {
        return status;
    }
    if (size >= SL_PACK_HEADER && sl_winograd_packed(packed)) {
        return sl_winograd_packed_check(shape, 1, variant, packed, size);
    }
    header = header_of(&forward, variant);
    return !is_depthwise(&forward) && size == packed_floats(&forward) && memcmp(packed, &header, sizeof header) == 0
               ? SL_OK
               : SL_ERR_ARG;
}

/* --- the walk back */

/* Row `at` of a plane of g from the phases' planes: parts[v] is the row of the phase whose columns begin at v, or NULL where no tap reaches them. */
static void
interleave_row(const sl_tier *tier, const float *const *parts, ptrdiff_t stride, const float *zeros, ptrdiff_t width,
               float *row)
{
    if (stride == 2 && (parts[0] != NULL || parts[1] != NULL)) {
        tier->zip_rows(parts[0] != NULL ? parts[0] : zeros, parts[1] != NULL ? parts[1] : zeros, width, row);
        return;
    }
    for (ptrdiff_t v = 0; v < sl_min(stride, width); v++) {
        for (ptrdiff_t j = v, i = 0; j < width; j += stride, i++) {
            row[j] = parts[v] != NULL ? parts[v][i] : 0.0F;
        }
    }
}

typedef struct {
    const sl_conv_plan *forward;
    const float **result; /* by first row and column: the phase's array, or NULL */
    const float *zeros;   /* a row of them */
    const sl_finish *finish;
} weave;

static void
weave_plane(const weave *w, const sl_tier *tier, ptrdiff_t plane, float *g)
{
    const sl_conv_shape *s = &w->forward->s;
    const ptrdiff_t down = s->stride_h, across = sl_min(s->stride_w, s->width);
    const float *parts[2] = {NULL, NULL};

    for (ptrdiff_t y = 0; y < s->height; y++) {
        float *row = g + (plane * s->height + y) * s->width;
        const ptrdiff_t u = y % down, i = plane * ((s->height - 1 - u) / down + 1) + y / down;
        const float *const *result = w->result + u * across;
        if (across <= 2) {
            for (ptrdiff_t v = 0; v < across; v++) {
                parts[v] = result[v] == NULL ? NULL : result[v] + i * ((s->width - 1 - v) / s->stride_w + 1);
            }
            interleave_row(tier, parts, across, w->zeros, s->width, row);
        } else {
            for (ptrdiff_t j = 0; j < s->width; j++) {
                const ptrdiff_t v = j % across, n = (s->width - 1 - v) / s->stride_w + 1;
                row[j] = result[v] == NULL ? 0.0F : result[v][i * n + j / across];
            }
        }
    }
    if (w->finish != NULL) {
        const ptrdiff_t offset = plane * s->height * s->width;
        tier->map_finish(w->finish, offset, s->height * s->width, g + offset);
    }
}

/* One phase into dst; `packed` moves on behind its weights. */
static sl_status
run_phase(const phase *p, const sl_conv_args *call, const float **packed, float *dst, int n_threads)
{
    sl_conv_args args = *call;
    sl_status status;

    args.y = dst;
    args.packed = *packed;
    *packed += sl_conv_panel_floats(&p->plan);
    if (p->plan.s.batch == 0 || p->plan.pixels == 0) {
        return SL_OK;
    }
    n_threads = p->plan.s.batch * p->plan.s.outputs * p->plan.pixels < SERIAL_BELOW / p->plan.k ? 1 : n_threads;
    status = sl_conv_product(&p->plan, &args, n_threads);
    return status;
}

/* Depthwise: the phase's taps of every kernel, in reverse, and the direct path. */
static sl_status
run_depthwise_phase(const sl_conv_plan *forward, const phase *p, const sl_conv_args *call, float *dst, int n_threads)
{
    sl_conv_args args = *call;
    float *kernels = sl_alloc(p->plan.s.outputs * p->plan.taps, sizeof *kernels);
    sl_status status;

    if (kernels == NULL) {
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t c = 0; c < p->plan.s.outputs; c++) {
        for (ptrdiff_t t = 0; t < p->plan.taps; t++) {
            kernels[c * p->plan.taps + t] = call->w[c * forward->taps + tap_of(forward, p, p->plan.taps - 1 - t)];
        }
    }
    args.w = kernels;
    args.y = dst;
    n_threads = p->plan.s.batch * p->plan.s.outputs * p->plan.pixels < SERIAL_BELOW / p->plan.taps ? 1 : n_threads;
    status = p->plan.pixels > 0 ? sl_conv_depthwise(&p->plan, &args, n_threads) : SL_OK;
    sl_free(kernels);
    return status;
}

static sl_status
run_one(const sl_conv_plan *forward, const phase *p, const sl_conv_args *call, const float **packed, float *dst,
        int n_threads)
{
    return is_depthwise(forward) ? run_depthwise_phase(forward, p, call, dst, n_threads)
                                 : run_phase(p, call, packed, dst, n_threads);
}

/* All phases into arrays of their own, then g from them. */
static sl_status
run_strided(const sl_conv_plan *forward, const sl_conv_args *call, float *g, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    const sl_conv_shape *s = &forward->s;
    const ptrdiff_t phases = phases_of(forward), planes = s->batch * s->channels;
    const ptrdiff_t floats = planes * s->height * s->width;
    weave w = {.forward = forward, .finish = call->finish};
    const float *packed = call->packed;
    sl_conv_args args = *call;
    float *results = sl_alloc(floats + s->width, sizeof *results), *to = results;
    sl_status status = SL_OK;

    w.result = sl_alloc(phases, sizeof *w.result);
    args.finish = NULL;
    if (results == NULL || w.result == NULL) {
        status = SL_ERR_NOMEM;
        goto done;
    }
    memset(results + floats, 0, (size_t)s->width * sizeof *results);
    w.zeros = results + floats;
    for (ptrdiff_t i = 0; i < phases; i++) {
        w.result[i] = NULL;
    }
    for (ptrdiff_t i = 0; i < phases && status == SL_OK; i++) {
        const phase p = make_phase(forward, i);
        if (p.used) {
            w.result[i] = to;
            status = run_one(forward, &p, &args, &packed, to, n_threads);
            to += planes * p.rows.count * p.columns.count;
        }
    }
    if (status == SL_OK) {
        const int threads = planes * s->height * s->width < (1 << 16) ? 1 : n_threads;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
        for (ptrdiff_t plane = 0; plane < planes; plane++) {
            weave_plane(&w, tier, plane, g);
        }
    }
done:
    sl_free(w.result);
    sl_free(results);
    return status;
}

sl_status
sl_conv_adjoint_f32(const sl_conv_shape *shape, const float *s, const float *w, const float *packed, sl_variant variant,
                    sl_variant part, const sl_finish *finish, float *g, int n_threads)
{
    sl_conv_args args = {.x = s, .w = w, .variant = variant, .part = part, .finish = finish};
    sl_conv_plan forward;
    float *own = NULL;
    sl_status status = sl_conv_plan_make(shape, &forward);

    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || !sl_variant_valid(variant, 0) || !sl_variant_valid(part, 1) || !sl_finish_valid(finish) ||
        (packed != NULL && !sl_winograd_packed(packed) &&
         sl_conv_adjoint_packed_check(shape, variant, packed, packed_floats(&forward)) != SL_OK)) {
        return SL_ERR_ARG;
    }
    if (packed != NULL && sl_winograd_packed(packed)) {
        args.packed = packed;
        args.y = g;
        return sl_winograd_call(shape, 1, &args, n_threads);
    }
    if (shape->batch == 0 || shape->height == 0 || shape->width == 0) {
        return SL_OK;
    }
    n_threads = sl_threads(n_threads);
    if (packed == NULL && !is_depthwise(&forward)) {
        own = sl_alloc(packed_floats(&forward), sizeof *own);
        if (own == NULL) {
            return SL_ERR_NOMEM;
        }
        status = pack_all(&forward, w, variant, own);
        if (status != SL_OK) {
            sl_free(own);
            return status;
        }
        packed = own;
    }
    args.packed = packed != NULL ? packed + SL_PACK_HEADER : NULL;
    if (phases_of(&forward) == 1) {
        const phase p = make_phase(&forward, 0);
        status = run_one(&forward, &p, &args, &args.packed, g, n_threads);
    } else {
        status = run_strided(&forward, &args, g, n_threads);
    }
    sl_free(own);
    return status;
}
