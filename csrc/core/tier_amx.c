/* Tile kernels in instructions.  Compiled with them where the compiler has them; see setup.py. */
#include "sl_split_private.h"

#if defined(__x86_64__) && defined(__linux__) &&                                                                       \
    (defined(__AMX_BF16__) || defined(__AMXBF16__)) /* newer and older names */
#include "sl_tile_ops.h"
#define SL_TILES sl_tiles_amx
#include "tier_split_inl.h"
#else
#define SL_FAULT "this build has no tile instructions: its compiler, or its operating system, lacks them"
const sl_tiles sl_tiles_amx[2] = {{.fault = SL_FAULT, .products = 6}, {.fault = SL_FAULT, .products = 3}};
#endif
