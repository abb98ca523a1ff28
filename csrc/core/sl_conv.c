/* Convolution: shapes, packed weights, choice of the path.  Contract: sl_conv.h. */
#include "sl/sl_conv.h"

#include <string.h>

#include "sl_conv_private.h"
#include "sl/sl_contract.h"
#include "sl/sl_cpu.h"
#include "sl/sl_winograd.h"
#include "sl_split_private.h"

enum { SERIAL_BELOW = 1 << 20 }; /* fewer multiply-adds than this are not worth a second thread */

static sl_status
output_length(ptrdiff_t size, ptrdiff_t before, ptrdiff_t after, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation,
              ptrdiff_t *out)
{
    ptrdiff_t padded, reach;

    if (size < 0 || before < 0 || after < 0 || kernel < 1 || stride < 1 || dilation < 1) {
        return SL_ERR_ARG;
    }
    if (__builtin_add_overflow(size, before, &padded) || __builtin_add_overflow(padded, after, &padded) ||
        sl_mul(kernel - 1, dilation, &reach) < 0 || reach == PTRDIFF_MAX) {
        return SL_ERR_OVERFLOW;
    }
    if (padded < reach + 1) {
        return SL_ERR_ARG;
    }
    *out = (padded - reach - 1) / stride + 1;
    return SL_OK;
}

/* The product of the four fits, as does its size in bytes. */
static int
fits(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c, ptrdiff_t d)
{
    ptrdiff_t n = 0;

    return sl_mul(a, b, &n) == 0 && sl_mul(n, c, &n) == 0 && sl_mul(n, d, &n) == 0 &&
           sl_mul(n, 2 * (ptrdiff_t)sizeof(float), &n) == 0;
}

sl_status
sl_conv_output_size(const sl_conv_shape *s, ptrdiff_t *out_h, ptrdiff_t *out_w)
{
    ptrdiff_t h, w;
    sl_status status;

    if (s->batch < 0 || s->channels < 1 || s->outputs < 1 || s->groups < 1 || s->channels % s->groups != 0 ||
        s->outputs % s->groups != 0) {
        return SL_ERR_ARG;
    }
    status = output_length(s->height, s->top, s->bottom, s->kernel_h, s->stride_h, s->dilation_h, &h);
    if (status == SL_OK) {
        status = output_length(s->width, s->left, s->right, s->kernel_w, s->stride_w, s->dilation_w, &w);
    }
    if (status != SL_OK) {
        return status;
    }
    if (!fits(s->batch, s->channels, s->height + s->top + s->bottom, s->width + s->left + s->right) ||
        !fits(s->batch, s->outputs, h, w) ||
        !fits(s->outputs + SL_MR_MAX, s->channels / s->groups, s->kernel_h, s->kernel_w)) {
        return SL_ERR_OVERFLOW;
    }
    *out_h = h;
    *out_w = w;
    return SL_OK;
}

/* Blocks of whole channels where a channel's taps fit into one, else pieces of a channel's taps. */
static ptrdiff_t
block_of_k(ptrdiff_t in_g, ptrdiff_t taps)
{
    if (taps > SL_GEMM_KC) {
        return sl_gemm_kblock(taps);
    }
    return sl_ceil_div(in_g, sl_ceil_div(in_g, SL_GEMM_KC / taps)) * taps;
}

sl_status
sl_conv_plan_make(const sl_conv_shape *shape, sl_conv_plan *plan)
{
    const sl_status status = sl_conv_output_size(shape, &plan->out_h, &plan->out_w);

    if (status != SL_OK) {
        return status;
    }
    plan->s = *shape;
    plan->s.stride_h = plan->out_h == 1 ? 1 : shape->stride_h; /* one output: any stride is as good */
    plan->s.stride_w = plan->out_w == 1 ? 1 : shape->stride_w;
    sl_conv_plan_derive(plan);
    return SL_OK;
}

void
sl_conv_plan_derive(sl_conv_plan *plan)
{
    plan->pixels = plan->out_h * plan->out_w;
    plan->in_g = plan->s.channels / plan->s.groups;
    plan->out_g = plan->s.outputs / plan->s.groups;
    plan->taps = plan->s.kernel_h * plan->s.kernel_w;
    plan->k = plan->in_g * plan->taps;
    plan->kblock = block_of_k(plan->in_g, plan->taps);
    plan->depthwise = plan->in_g == 1 && plan->out_g <= 4; /* more outputs per channel: a product pays */
    plan->flip = 0;
}

ptrdiff_t
sl_conv_panel_floats(const sl_conv_plan *plan)
{
    if (sl_tiles_get() != NULL) {
        return plan->s.groups * sl_split_operand(plan->out_g, plan->k, plan->kblock);
    }
    return plan->s.groups * sl_round_up(plan->out_g, sl_tier_get()->mr) * plan->k;
}

static const sl_variant PLAIN = {SL_SEEN_PLAIN, 0.0F};

static sl_pack_header
header_of(const sl_conv_plan *plan, sl_variant variant)
{
    uint32_t gamma;
    const sl_tier *tier = sl_tier_get();
    sl_pack_header header = {
        .kind = SL_PACK_CONV, .lanes = tier->lanes, .width = tier->mr, .kblock = (int32_t)plan->kblock};

    memcpy(header.magic, SL_PACK_MAGIC, sizeof header.magic);
    header.size[0] = plan->s.outputs;
    header.size[1] = plan->in_g;
    memcpy(&gamma, &variant.gamma, sizeof gamma);
    header.size[2] = plan->s.kernel_h * plan->s.kernel_w + ((int64_t)plan->s.kernel_h << 40); /* far below 2^20 rows */
    header.size[3] = (int64_t)variant.seen << 32 | (int64_t)gamma;
    header.size[4] = plan->s.groups;
    sl_split_mark(&header);
    return header;
}

static ptrdiff_t
packed_floats(const sl_conv_plan *plan)
{
    return SL_PACK_HEADER + sl_conv_panel_floats(plan);
}

/* What the picture is does not matter to the weights: any that the kernel fits into. */
static sl_status
weight_plan(const sl_conv_shape *shape, sl_conv_plan *plan)
{
    sl_conv_shape s = *shape;

    s.batch = s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = 1;
    s.top = s.left = s.bottom = s.right = 0;
    s.height = s.kernel_h;
    s.width = s.kernel_w;
    return sl_conv_plan_make(&s, plan);
}

sl_status
sl_conv_packed_size(const sl_conv_shape *shape, ptrdiff_t *size)
{
    sl_conv_plan plan;
    const sl_status status = weight_plan(shape, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (plan.depthwise) {
        *size = 0;
        return SL_OK;
    }
    if (!fits(plan.s.groups, plan.out_g + SL_MR_MAX, plan.k, 1)) {
        return SL_ERR_OVERFLOW;
    }
    *size = packed_floats(&plan);
    return SL_OK;
}

/* Per group and block of K: panels [k][mr]. */
static void
pack_weights(const sl_conv_plan *plan, const float *w, sl_variant variant, float *packed)
{
    const sl_tier *tier = sl_tier_get();
    const sl_pack_header header = header_of(plan, variant);
    const ptrdiff_t rows = sl_round_up(plan->out_g, tier->mr);

    memset(packed, 0, SL_PACK_HEADER * sizeof *packed);
    memcpy(packed, &header, sizeof header);
    packed += SL_PACK_HEADER;
    for (ptrdiff_t g = 0; g < plan->s.groups; g++) {
        if (sl_tiles_get() != NULL) {
            sl_split_pack_left(w + g * plan->out_g * plan->k, plan->out_g, plan->k, plan->kblock, variant,
                               sl_tiles_get(), packed + g * (sl_conv_panel_floats(plan) / plan->s.groups));
            continue;
        }
        for (ptrdiff_t k0 = 0; k0 < plan->k; k0 += plan->kblock) {
            const ptrdiff_t depth = sl_min(plan->kblock, plan->k - k0);
            float *to = packed + (g * plan->k + k0) * rows;
            sl_gemm_pack_a(tier, w + g * plan->out_g * plan->k + k0, plan->k, plan->out_g, depth, to);
            if (variant.seen != SL_SEEN_PLAIN) {
                tier->map_variant(to, rows * depth, variant, to);
            }
        }
    }
}

sl_status
sl_conv_pack_f32(const sl_conv_shape *shape, const float *w, float *packed)
{
    return sl_conv_forward_pack_f32(shape, w, PLAIN, packed);
}

sl_status
sl_conv_forward_pack_f32(const sl_conv_shape *shape, const float *w, sl_variant variant, float *packed)
{
    sl_conv_plan plan;
    const sl_status status = weight_plan(shape, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (plan.depthwise || !sl_variant_valid(variant, 0)) {
        return SL_ERR_ARG;
    }
    pack_weights(&plan, w, variant, packed);
    return SL_OK;
}

sl_status
sl_conv_packed_check(const sl_conv_shape *shape, const float *packed, ptrdiff_t size)
{
    return sl_conv_forward_packed_check(shape, PLAIN, packed, size);
}

sl_status
sl_conv_forward_packed_check(const sl_conv_shape *shape, sl_variant variant, const float *packed, ptrdiff_t size)
{
    sl_conv_plan plan;
    sl_pack_header header;
    const sl_status status = weight_plan(shape, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (size >= SL_PACK_HEADER && sl_winograd_packed(packed)) {
        return sl_winograd_packed_check(shape, 0, variant, packed, size);
    }
    header = header_of(&plan, variant);
    return !plan.depthwise && size == packed_floats(&plan) && memcmp(packed, &header, sizeof header) == 0 ? SL_OK
                                                                                                          : SL_ERR_ARG;
}

/* A call whose arguments have been checked; packed as in sl_conv2d_f32. */
static sl_status
run(const sl_conv_plan *plan, sl_conv_args *args, int n_threads)
{
    float *own = NULL;
    sl_status status;

    if (plan->s.batch == 0) {
        return SL_OK;
    }
    n_threads = plan->s.batch * plan->s.outputs * plan->pixels < SERIAL_BELOW / plan->k ? 1 : sl_threads(n_threads);
    if (plan->depthwise) {
        return sl_conv_depthwise(plan, args, n_threads);
    }
    if (args->packed == NULL) {
        own = sl_alloc(packed_floats(plan), sizeof *own);
        if (own == NULL) {
            return SL_ERR_NOMEM;
        }
        pack_weights(plan, args->w, args->variant, own);
        args->packed = own;
    }
    args->packed += SL_PACK_HEADER;
    status = sl_conv_product(plan, args, n_threads);
    sl_free(own);
    return status;
}

sl_status
sl_conv2d_f32(const sl_conv_shape *shape, const float *x, const float *w, const float *packed, const float *bias,
              const float *addend, sl_activation activation, float *y, int n_threads)
{
    sl_conv_args args = {
        .x = x, .w = w, .packed = packed, .bias = bias, .addend = addend, .y = y, .activation = activation};
    sl_conv_plan plan;
    const sl_status status = sl_conv_plan_make(shape, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || (int)activation < SL_ACT_NONE || (int)activation > SL_ACT_LAST) {
        return SL_ERR_ARG;
    }
    if (packed != NULL && sl_winograd_packed(packed)) {
        return sl_winograd_call(shape, 0, &args, n_threads);
    }
    if (packed != NULL && sl_conv_packed_check(shape, packed, packed_floats(&plan)) != SL_OK) {
        return SL_ERR_ARG;
    }
    return run(&plan, &args, n_threads);
}

sl_status
sl_conv_forward_f32(const sl_conv_shape *shape, const float *x, const float *w, const float *packed, sl_variant variant,
                    sl_variant part, const float *bias, const sl_finish *finish, float *z, int n_threads)
{
    sl_conv_args args = {.x = x, .w = w, .bias = bias, .y = z, .variant = variant, .part = part, .finish = finish};
    sl_conv_plan plan;
    const sl_status status = sl_conv_plan_make(shape, &plan);

    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || !sl_variant_valid(variant, 0) || !sl_variant_valid(part, 1) || !sl_finish_valid(finish)) {
        return SL_ERR_ARG;
    }
    args.packed = packed;
    if (packed != NULL && sl_winograd_packed(packed)) {
        return sl_winograd_call(shape, 0, &args, n_threads);
    }
    if (packed != NULL && sl_conv_forward_packed_check(shape, variant, packed, packed_floats(&plan)) != SL_OK) {
        return SL_ERR_ARG;
    }
    return run(&plan, &args, n_threads);
}
