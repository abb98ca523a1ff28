/* Body of every tier file.  The includer defines SL_TIER (the struct's name), SL_TIER_NAME (its text) and SL_LANES (float32 lanes). */
#include "sl_tier.h"

#include "tier_vec_inl.h"

#include "tier_gemm_inl.h"
#include "tier_rand_inl.h"

const sl_tier SL_TIER = {
    .name = SL_TIER_NAME,
    .lanes = SL_LANES,
    .rand_tile = rand_tile,
    .rand_difference = rand_difference,
    .mr = SL_MR,
    .nr = SL_NR,
    .gemm_panel = gemm_panel,
    .pack_a = pack_a,
    .pack_b = pack_b,
};
