#define SL_TIER sl_tier_baseline
#define SL_TIER_NAME "baseline"
#define SL_LANES 4
#include "tier_body_inl.h"
