/* Body of every tier file.  The includer defines SL_TIER (the struct's name), SL_TIER_NAME (its text) and SL_LANES (float32 lanes). */
#include "sl/sl_gemm.h"
#include "sl_tier.h"

#include <math.h>
#include <string.h>

#include "tier_vec_inl.h"

#include "tier_elementwise_inl.h"

#include "tier_gemm_inl.h"
#include "tier_direct_inl.h"
#include "tier_rand_inl.h"
#include "tier_lens_inl.h"
#include "tier_space_inl.h"
#include "tier_gram_inl.h"
#include "tier_cells_inl.h"
#include "tier_member_inl.h"
#include "tier_topm_inl.h"

#include "tier_thin_inl.h"

#include "tier_conv_inl.h"

#include "tier_depthwise_inl.h"

#include "tier_pool_inl.h"

#include "tier_contract_inl.h"

#include "tier_adjoint_inl.h"
#include "tier_relevance_inl.h"
#include "tier_transformer_inl.h"
#include "tier_winograd_inl.h"

const sl_tier SL_TIER = {
    .name = SL_TIER_NAME,
    .lanes = SL_LANES,
    .rand_tile = rand_tile,
    .rand_places = rand_places,
    .rand_difference = rand_difference,
    .rand_parts = rand_parts,
    .rand_distance = rand_distance,
    .space_within = space_within,
    .space_points = space_points,
    .space_box = space_box,
    .cells_find = cells_find,
    .cells_both = cells_both,
    .member_nearest = member_nearest,
    .member_nearness = member_nearness,
    .member_weigh = member_weigh,
    .gram_bins = gram_bins,
    .gram_gauss = gram_gauss,
    .gram_sums = gram_sums,
    .gram_hits = gram_hits,
    .gram_dot = gram_dot,
    .cross_rows = SL_CROSS_ROWS,
    .cross_columns = SL_CROSS_COLUMNS,
    .cross_tile = cross_tile,
    .mr = SL_MR,
    .nr = SL_NR,
    .gemm_panel = gemm_panel,
    .gemm_direct = gemm_direct,
    .pack_a = pack_a,
    .pack_b = pack_b,
    .lens = &lens_loops,
    .topm_scan = topm_scan,
    .topm_ranks = topm_ranks,
    .topm_range = topm_range,
    .topm_pivot = topm_pivot,
    .gemm_thin = gemm_thin,
    .pack_runs = pack_runs,
    .pad_row = pad_row,
    .map_activate = map_activate,
    .map_add = map_add,
    .map_multiply = map_multiply,
    .map_scale = map_scale,
    .map_scale_shift = map_scale_shift,
    .reduce_max = reduce_max,
    .reduce_sum = reduce_sum,
    .softmax_row = softmax_row,
    .row_max = row_max,
    .row_max_strided = row_max_strided,
    .row_sum = row_sum,
    .depthwise = depthwise,
    .map_variant = map_variant,
    .map_slope = map_slope,
    .map_quotient = map_quotient,
    .map_times = map_times,
    .map_by_sign = map_by_sign,
    .map_finish = map_finish,
    .copy_a = copy_a,
    .copy_b = copy_b,
    .pack_taps = pack_taps,
    .axpy_rows = axpy_rows,
    .zip_rows = zip_rows,
    .dot_double = dot_double,
    .tile_input = tile_input,
    .tile_output = tile_output,
    .tile_weights = tile_weights,
    .norm_row = norm_row,
    .attention_row = attention_row,
    .peak_chains = SL_PEAK_CHAINS,
    .peak_loop = peak_loop,
};
