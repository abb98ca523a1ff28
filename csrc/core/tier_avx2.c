#if defined(__x86_64__)
#define SL_TIER sl_tier_avx2
#define SL_TIER_NAME "avx2"
#define SL_LANES 8
#include "tier_body_inl.h"
#else
typedef int sl_tier_avx2_not_compiled; /* ISO C forbids an empty translation unit */
#endif
