/* Blocks of inner products for sl_gram.c and sl_near.c. */
#ifndef SL_GRAM_PRIVATE_H
#define SL_GRAM_PRIVATE_H

#include "sl/sl_measures.h"
#include "sl_gemm_private.h"

enum { SL_GRAM_BLOCK = 192 }; /* rows and columns of a block: a multiple of every tier's mr and nr */

struct sl_gram {
    ptrdiff_t n, d, blocks, height, kblock; /* height: rows with those that fill the last block */
    float *left, *right;                    /* x as left and right operand, block of K by block of K */
    float *square;                          /* (height) squared norms */
    float longest;                          /* largest norm */
};

/* c (SL_GRAM_BLOCK, SL_GRAM_BLOCK) = products of the rows of two blocks; what lies beyond row n is arbitrary. */
void sl_gram_product(const sl_tier *tier, const sl_gram *gram, ptrdiff_t block_row, ptrdiff_t block_column, float *c);

/* Pairs i < j of row i (counted from 0 in all rows) within block_column: columns [*from, *to) of the block. */
static inline void
sl_gram_columns(const sl_gram *gram, ptrdiff_t i, ptrdiff_t block_column, ptrdiff_t *from, ptrdiff_t *to)
{
    const ptrdiff_t first = block_column * SL_GRAM_BLOCK;

    *from = i + 1 > first ? i + 1 - first : 0;
    *to = sl_min(SL_GRAM_BLOCK, gram->n - first);
    if (*from > *to) {
        *from = *to;
    }
}

#endif
