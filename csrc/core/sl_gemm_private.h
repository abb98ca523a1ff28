/* Pieces of the matrix product that convolutions share.  Private to csrc/core. */
#ifndef SL_GEMM_PRIVATE_H
#define SL_GEMM_PRIVATE_H

#include "sl/sl_gemm.h"
#include "sl/sl_elementwise.h"
#include "sl_tier.h"

enum {
    SL_GEMM_MC = 240, /* rows of A per block: 240 x 320 floats = 300 kB of the second-level cache */
    SL_MR_MAX = 16,   /* bounds of every tier's mr and nr */
    SL_NR_MAX = 64,
};

/* Begins every packed operand, so that one of another tier, build or shape is refused. */
typedef struct {
    char magic[8];
    int32_t kind, lanes, width, kblock; /* width: mr or nr */
    int64_t size[5];
} sl_pack_header;

#define SL_PACK_MAGIC "SLpack1" /* with its 0: eight bytes; raise the number when the layout changes */
enum { SL_PACK_HEADER = 16 };   /* floats that the header takes */
enum { SL_PACK_CONV = 1, SL_PACK_DENSE = 2, SL_PACK_ADJOINT = 3, SL_PACK_WINOGRAD = 4 };
_Static_assert(sizeof(sl_pack_header) <= SL_PACK_HEADER * sizeof(float), "the header has outgrown its place");

static inline ptrdiff_t
sl_min(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

static inline ptrdiff_t
sl_ceil_div(ptrdiff_t a, ptrdiff_t b)
{
    return a / b + (a % b != 0);
}

static inline ptrdiff_t
sl_round_up(ptrdiff_t a, ptrdiff_t b)
{
    return sl_ceil_div(a, b) * b;
}

/* Length of the blocks that k is cut into: equal up to the last, at most SL_GEMM_KC, 0 for k = 0. */
ptrdiff_t sl_gemm_kblock(ptrdiff_t k);

/* Packs m rows of A, k columns each, into ceil(m / mr) panels [k][mr]. */
void sl_gemm_pack_a(const sl_tier *tier, const float *a, ptrdiff_t lda, ptrdiff_t m, ptrdiff_t k, float *dst);

/* Columns of a panel of C that are neighbours in memory, `offset` floats from the first row's base in C and in the addend. */
typedef struct {
    ptrdiff_t column, length, offset;
} sl_piece;

/* tier->gemm_panel for a panel of 1..nr columns that lie in pieces; anything but one piece of nr columns goes through `edge` (rows * nr floats). */
void sl_gemm_run_panel(const sl_tier *tier, const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb,
                       const sl_piece *pieces, ptrdiff_t n_pieces, float *c, ptrdiff_t ldc, const sl_epilogue *e,
                       float *edge);

/* An operand of sl_product_run: element (row, p) of matrix (o, i) lies at data + o outer + i inner + row ld + p (along_k) or + p ld + row. */
typedef struct {
    const float *data;
    ptrdiff_t outer, inner, ld;
    int along_k;
    sl_variant variant;
} sl_operand;

/* c[o,i,r,q] = work of `finish` on (bias[q] + sum_p a(r, p) b(q, p)); with a finish, c is one dense matrix. */
typedef struct {
    ptrdiff_t outer, inner, m, n, k;
    sl_operand a, b;
    float *c;
    ptrdiff_t c_outer, c_inner, ldc;
    const float *bias;
    const sl_finish *finish;
    float scale;
} sl_product;

/* Sums as in sl_gemm.h.  Sizes must have been checked.  SL_ERR_NOMEM. */
sl_status sl_product_run(const sl_product *product, int n_threads);

static inline int
sl_variant_valid(sl_variant v, int keeps_zero)
{
    return (int)v.seen >= SL_SEEN_PLAIN && (int)v.seen <= SL_SEEN_MORE_NEGATIVE &&
           !(keeps_zero && v.seen == SL_SEEN_ONE);
}

static inline int
sl_finish_valid(const sl_finish *f)
{
    return f == NULL || sl_variant_valid(f->part, 0);
}

#endif
