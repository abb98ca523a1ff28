/* The same kernels with the tile operations in C, for tests: only in builds that define SL_EMULATE_AMX, and far slower than floats. */
#include "sl_split_private.h"

#ifdef SL_EMULATE_AMX
#define SL_TILE_EMULATED
#include "sl_tile_ops.h"
#define SL_TILES sl_tiles_emulated
#include "tier_split_inl.h"
#else
#define SL_FAULT "this build has no emulation of tile instructions: build with SEMANTICLENS_EMULATE_AMX=1"
const sl_tiles sl_tiles_emulated[2] = {{.fault = SL_FAULT, .products = 6}, {.fault = SL_FAULT, .products = 3}};
#endif
