/* Packed, cache-blocked matrix products.  Contract: sl_gemm.h.  Micro-kernels: tier_gemm_inl.h.
 *
 * Loops, outside in: blocks of K; blocks of rows of A, packed so that they stay in the second-level cache; panels of B, packed one at a time into
 * the first-level cache; tiles of C in registers. */
#include "sl/sl_gemm.h"

#include <string.h>

#include "sl_gemm_private.h"

ptrdiff_t
sl_gemm_kblock(ptrdiff_t k)
{
    const ptrdiff_t blocks = sl_ceil_div(k, SL_GEMM_KC);

    return blocks > 0 ? sl_ceil_div(k, blocks) : 0;
}

static void
gather(const float *base, ptrdiff_t ld, ptrdiff_t rows, const sl_piece *pieces, ptrdiff_t n_pieces, ptrdiff_t width,
       float *edge)
{
    memset(edge, 0, (size_t)(rows * width) * sizeof *edge);
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t r = 0; r < n_pieces; r++) {
            memcpy(edge + i * width + pieces[r].column, base + i * ld + pieces[r].offset,
                   (size_t)pieces[r].length * sizeof *edge);
        }
    }
}

static void
scatter(float *base, ptrdiff_t ld, ptrdiff_t rows, const sl_piece *pieces, ptrdiff_t n_pieces, ptrdiff_t width,
        const float *edge)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t r = 0; r < n_pieces; r++) {
            memcpy(base + i * ld + pieces[r].offset, edge + i * width + pieces[r].column,
                   (size_t)pieces[r].length * sizeof *edge);
        }
    }
}

void
sl_gemm_run_panel(const sl_tier *tier, const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb,
                  const sl_piece *pieces, ptrdiff_t n_pieces, float *c, ptrdiff_t ldc, const sl_epilogue *e,
                  float *edge)
{
    const ptrdiff_t cols = pieces[n_pieces - 1].column + pieces[n_pieces - 1].length;
    const ptrdiff_t width = cols > tier->lanes ? tier->nr : tier->lanes;
    sl_epilogue local = *e;
    float bias[SL_NR_MAX] = {0.0F};

    if (cols == tier->nr && n_pieces == 1) {
        if (e->addend != NULL) {
            local.addend = e->addend + pieces[0].offset;
        }
        tier->gemm_panel(a, rows, k, b, ldb, cols, c + pieces[0].offset, ldc, &local);
        return;
    }
    if (!e->first) {
        gather(c, ldc, rows, pieces, n_pieces, width, edge);
    } else if (e->addend != NULL) {
        gather(e->addend, e->ld_addend, rows, pieces, n_pieces, width, edge);
        local.addend = edge;
        local.ld_addend = width;
    }
    if (e->bias_col != NULL) {
        memcpy(bias, e->bias_col, (size_t)cols * sizeof *bias);
        local.bias_col = bias;
    }
    tier->gemm_panel(a, rows, k, b, ldb, width, edge, width, &local);
    scatter(c, ldc, rows, pieces, n_pieces, width, edge);
}

void
sl_gemm_pack_a(const sl_tier *tier, const float *a, ptrdiff_t lda, ptrdiff_t m, ptrdiff_t k, float *dst)
{
    for (ptrdiff_t i = 0; i < m; i += tier->mr) {
        tier->pack_a(a + i * lda, lda, sl_min(tier->mr, m - i), k, dst + i * k);
    }
}

ptrdiff_t
sl_gemm_nt_worksize(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k)
{
    const ptrdiff_t rows = sl_min(m, SL_GEMM_MC) + SL_MR_MAX, kc = sl_gemm_kblock(k);

    (void)n; /* one panel of B at a time */
    return sl_round_up(rows * kc, 16) + sl_round_up(SL_NR_MAX * kc, 16) + rows * SL_NR_MAX;
}

void
sl_gemm_nt_serial_f32(const float *a, ptrdiff_t lda, ptrdiff_t m, const float *b, ptrdiff_t ldb, ptrdiff_t n,
                      ptrdiff_t k, float *c, ptrdiff_t ldc, float *work)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t rows_max = sl_min(m, SL_GEMM_MC) + SL_MR_MAX, kc = sl_gemm_kblock(k),
                    mc = SL_GEMM_MC / tier->mr * tier->mr;
    float *left = work, *right = left + sl_round_up(rows_max * kc, 16), *edge = right + sl_round_up(SL_NR_MAX * kc, 16);

    for (ptrdiff_t i = 0; i < m && k == 0; i++) {
        memset(c + i * ldc, 0, (size_t)n * sizeof *c);
    }
    for (ptrdiff_t k0 = 0; k0 < k; k0 += kc) {
        const ptrdiff_t depth = sl_min(kc, k - k0);
        const sl_epilogue e = {.first = k0 == 0, .last = k0 + depth == k, .activation = SL_ACT_NONE};
        for (ptrdiff_t i = 0; i < m; i += mc) {
            const ptrdiff_t rows = sl_min(mc, m - i);
            sl_gemm_pack_a(tier, a + i * lda + k0, lda, rows, depth, left);
            for (ptrdiff_t j = 0; j < n; j += tier->nr) {
                const sl_piece piece = {.column = 0, .length = sl_min(tier->nr, n - j), .offset = j};
                tier->pack_b(b + j * ldb + k0, ldb, piece.length, depth, right);
                sl_gemm_run_panel(tier, left, rows, depth, right, tier->nr, &piece, 1, c + i * ldc, ldc, &e, edge);
            }
        }
    }
}
