/* Operands split into bfloat16 parts, and the kernels on them.  Contract: sl/sl_split.h.  Private to csrc/core.
 *
 * A panel is up to 32 rows of an operand and one block of K.  It begins with a word that has a bit for every row that is not plain; such a row stores the
 * upper and lower halves of its float32 values in place of hi and mid.  Steps of 32 terms follow, each three parts of two tiles of 1 kB: 16 rows of 32 terms
 * in a left panel, 16 pairs of terms of 16 rows in a right one.  What is missing of a tile is 0. */
#ifndef SL_SPLIT_PRIVATE_H
#define SL_SPLIT_PRIVATE_H

#include "sl/sl_split.h"
#include "sl_gemm_private.h"

enum {
    SL_SPLIT_ROWS = 32, /* of a panel, left or right */
    SL_SPLIT_TERMS = 32,
    SL_SPLIT_TILE = 512, /* numbers of a tile */
    SL_SPLIT_STEP = 3 * 2 * SL_SPLIT_TILE /* numbers of a step */,
    SL_SPLIT_HEAD = 16, /* floats before the first step */
    SL_SPLIT_LANES = 3, /* in the header of packed weights, where float tiers have theirs */
};

typedef struct sl_tiles {
    const char *fault; /* why this build has no such kernels, or NULL */
    int products;      /* 6 or 3 */
    /* Around everything else of this struct, on the thread that calls it: tile registers are configured, and released. */
    void (*begin)(void);
    void (*end)(void);
    /* A left panel from rows along K (row distance ld), a right one from K rows of n <= 32 neighbours (row distance ld). */
    void (*split_left)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t depth, float *panel);
    void (*split_right)(const float *src, ptrdiff_t ld, ptrdiff_t n, ptrdiff_t depth, float *panel);
    /* dst (depth, 32) = the transpose of src (rows <= 32, depth): rows along K for split_right, or (32, depth <- 32) the other way round. */
    void (*turn)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t columns, float *dst, ptrdiff_t ld_dst);
    /* As sl_gemm_run_panel: a = left panels of ceil(rows / 32), `panel` floats apart; work: sl_split_work(depth) floats. */
    void (*run_panel)(const struct sl_tiles *tiles, const sl_tier *tier, const float *a, ptrdiff_t panel,
                      ptrdiff_t rows, ptrdiff_t depth, const float *b, const sl_piece *pieces, ptrdiff_t n_pieces,
                      float *c, ptrdiff_t ldc, const sl_epilogue *e, float *work);
    /* 1 if a product of whole numbers, known beforehand, comes out right. */
    int (*proves)(const struct sl_tiles *tiles);
} sl_tiles;

/* With six products, then with three; `fault` is set where the compiler has no tile instructions, or the emulation was not asked for. */
extern const sl_tiles sl_tiles_amx[2];
extern const sl_tiles sl_tiles_emulated[2];

/* Why tile instructions cannot be used here, or NULL.  Asks the processor and the operating system; changes nothing. */
const char *sl_amx_fault(void);
/* The kernel's permission for this process to use tile registers: why not, or NULL. */
const char *sl_amx_permit(void);

/* Tile kernels of the active tier, or NULL. */
const sl_tiles *sl_tiles_get(void);

/* Floats of a panel. */
static inline ptrdiff_t
sl_split_panel(ptrdiff_t depth)
{
    return SL_SPLIT_HEAD + sl_ceil_div(depth, SL_SPLIT_TERMS) * (SL_SPLIT_STEP / 2);
}

/* Floats that run_panel needs: a tile of C, and both operands as floats. */
static inline ptrdiff_t
sl_split_work(ptrdiff_t depth)
{
    return SL_SPLIT_ROWS * SL_SPLIT_ROWS + 2 * SL_SPLIT_ROWS * sl_round_up(depth, 16);
}

/* Floats of an operand of `rows` rows packed whole: panels of block after block of K, all of equal size. */
static inline ptrdiff_t
sl_split_operand(ptrdiff_t rows, ptrdiff_t k, ptrdiff_t kblock)
{
    return k > 0 ? sl_ceil_div(rows, SL_SPLIT_ROWS) * sl_ceil_div(k, kblock) * sl_split_panel(kblock) : 0;
}

/* Marks the header of an operand that is packed for tiles. */
static inline void
sl_split_mark(sl_pack_header *header)
{
    if (sl_tiles_get() != NULL) {
        header->lanes = SL_SPLIT_LANES;
        header->width = SL_SPLIT_ROWS;
    }
}

/* sl_product_run on tiles; packed: right panels of all of b, or NULL; addend: laid out like c (of one matrix), added before the activation, or NULL. */
sl_status sl_split_product(const sl_product *p, const float *packed, const float *addend, sl_activation activation,
                           const sl_tiles *tiles, int n_threads);
/* w (n, k) as right panels, sl_split_operand floats. */
void sl_split_pack_right(const float *w, ptrdiff_t n, ptrdiff_t k, ptrdiff_t kblock, const sl_tiles *tiles,
                         float *packed);
/* Rows of k weights, `rows` of them, seen through a variant, as left panels. */
void sl_split_pack_left(const float *w, ptrdiff_t rows, ptrdiff_t k, ptrdiff_t kblock, sl_variant variant,
                        const sl_tiles *tiles, float *packed);

#endif
