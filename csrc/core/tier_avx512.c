#if defined(__x86_64__)
#define SL_TIER sl_tier_avx512
#define SL_TIER_NAME "avx512"
#define SL_LANES 16
#include "tier_body_inl.h"
#else
typedef int sl_tier_avx512_not_compiled; /* ISO C forbids an empty translation unit */
#endif
