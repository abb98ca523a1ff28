#if defined(__aarch64__)
#define SL_TIER sl_tier_neon
#define SL_TIER_NAME "neon"
#define SL_LANES 4
#define SL_TIER_IS_NEON 1
#include "tier_body_inl.h"
#else
typedef int sl_tier_neon_not_compiled; /* ISO C forbids an empty translation unit */
#endif
