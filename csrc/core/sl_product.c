/* Matrix products with operands of any layout and variant, one or many.  Contract: sl_contract.h, sums as in sl_gemm.h.
 *
 * A task is a rectangle of one matrix of C.  It packs the rows of A it needs, block of K by block of K, and panel after panel of B, forming the
 * variants in the packed copies.  Few rows take paths that do not pack: B is read in its own order, once. */
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"
#include "sl_split_private.h"

enum {
    SERIAL_BELOW = 1 << 18, /* fewer multiply-adds than this are not worth a second thread */
    AXPY_ROWS = 8,          /* most rows of A that leave a B of rows side by side unpacked */
    AXPY_COLUMNS = 8192,    /* sums that are kept at a time there: at most 2048 columns */
    AXPY_DEPTH = 16,        /* rows of B whose variant is formed at a time */
};

typedef enum { PACKED, THIN, AXPY } path;

typedef struct {
    path way;
    ptrdiff_t kblock, row_step, col_step, row_tiles, col_tiles, tasks;
    ptrdiff_t left, right, edge, work; /* floats of a thread's buffers, and of all of them */
} cut;

static void
make_cut(const sl_product *p, const sl_tier *tier, int n_threads, cut *t)
{
    const ptrdiff_t batch = p->outer * p->inner, mc = SL_GEMM_MC / tier->mr * tier->mr;
    ptrdiff_t unit = tier->nr, units, per;

    t->way = PACKED;
    t->kblock = sl_gemm_kblock(p->k);
    if (!p->b.along_k && p->m <= AXPY_ROWS) {
        t->way = AXPY;
        unit = sl_min(AXPY_COLUMNS / p->m / 256 * 128, 1024);
    } else if (p->b.along_k && p->m <= SL_THIN_ROWS && p->n >= tier->nr && p->b.variant.seen == SL_SEEN_PLAIN &&
               p->finish == NULL && p->scale == 1.0F) {
        t->way = THIN;
    }
    units = sl_ceil_div(p->n, unit);
    t->row_step = t->way == PACKED ? mc : p->m;
    t->row_tiles = sl_ceil_div(p->m, t->row_step);
    t->row_step = sl_round_up(sl_ceil_div(p->m, t->row_tiles), tier->mr);
    per = t->way == AXPY ? 2 : units;
    while (per > 1 && batch * t->row_tiles * sl_ceil_div(units, per) < 4 * (ptrdiff_t)n_threads) {
        per = sl_ceil_div(per, 2);
    }
    t->col_step = per * unit;
    t->col_tiles = sl_ceil_div(p->n, t->col_step);
    t->tasks = batch * t->row_tiles * t->col_tiles;
    t->left = sl_round_up(t->way == PACKED ? t->row_step * t->kblock : p->m * p->k, 16);
    t->right = sl_round_up(t->way == AXPY ? AXPY_DEPTH * t->col_step : tier->nr * t->kblock, 16);
    t->edge = sl_round_up((t->way == AXPY ? p->m * t->col_step : t->row_step * tier->nr), 16);
    t->work = t->left + t->right + t->edge;
}

/* Panels of the rows row0 .. row0 + rows, depth columns from k0. */
static void
pack_left(const sl_tier *tier, const sl_operand *a, const float *base, ptrdiff_t row0, ptrdiff_t rows, ptrdiff_t k0,
          ptrdiff_t depth, float *dst)
{
    for (ptrdiff_t i = 0; i < rows; i += tier->mr) {
        const ptrdiff_t some = sl_min(tier->mr, rows - i);
        if (a->along_k) {
            tier->pack_a(base + (row0 + i) * a->ld + k0, a->ld, some, depth, dst + i * depth);
        } else {
            tier->copy_a(base + k0 * a->ld + row0 + i, a->ld, some, depth, dst + i * depth);
        }
    }
    if (a->variant.seen != SL_SEEN_PLAIN) {
        tier->map_variant(dst, sl_round_up(rows, tier->mr) * depth, a->variant, dst);
    }
}

static void
pack_right(const sl_tier *tier, const sl_operand *b, const float *base, ptrdiff_t row0, ptrdiff_t rows, ptrdiff_t k0,
           ptrdiff_t depth, float *dst)
{
    if (b->along_k) {
        tier->pack_b(base + row0 * b->ld + k0, b->ld, rows, depth, dst);
    } else {
        tier->copy_b(base + k0 * b->ld + row0, b->ld, rows, depth, dst);
    }
    if (b->variant.seen != SL_SEEN_PLAIN) {
        tier->map_variant(dst, tier->nr * depth, b->variant, dst);
    }
}

/* A as m rows of k floats, its variant formed: for the paths that do not pack. */
static void
lay_out_left(const sl_product *p, const sl_tier *tier, const float *base, float *dst)
{
    for (ptrdiff_t i = 0; i < p->m; i++) {
        if (p->a.along_k) {
            memcpy(dst + i * p->k, base + i * p->a.ld, (size_t)p->k * sizeof *dst);
        } else {
            for (ptrdiff_t q = 0; q < p->k; q++) {
                dst[i * p->k + q] = base[q * p->a.ld + i];
            }
        }
    }
    if (p->a.variant.seen != SL_SEEN_PLAIN) {
        tier->map_variant(dst, p->m * p->k, p->a.variant, dst);
    }
}

/* What is left to do with the finished columns from .. to of the rows row0 .. row0 + rows. */
static void
finish_rows(const sl_product *p, const sl_tier *tier, float *c, ptrdiff_t row0, ptrdiff_t rows, ptrdiff_t from,
            ptrdiff_t to)
{
    for (ptrdiff_t i = row0; i < row0 + rows; i++) {
        if (p->scale != 1.0F) {
            tier->map_scale(c + i * p->ldc + from, to - from, p->scale, c + i * p->ldc + from);
        }
        if (p->finish != NULL) {
            tier->map_finish(p->finish, i * p->ldc + from, to - from, c + i * p->ldc + from);
        }
    }
}

static void
run_packed(const sl_product *p, const cut *t, const sl_tier *tier, const float *a, const float *b, float *c,
           ptrdiff_t row0, ptrdiff_t from, float *work)
{
    const ptrdiff_t rows = sl_min(t->row_step, p->m - row0), to = sl_min(from + t->col_step, p->n);
    float *left = work, *right = left + t->left, *edge = right + t->right;

    for (ptrdiff_t k0 = 0; k0 < p->k; k0 += t->kblock) {
        const ptrdiff_t depth = sl_min(t->kblock, p->k - k0);
        pack_left(tier, &p->a, a, row0, rows, k0, depth, left);
        for (ptrdiff_t j = from; j < to; j += tier->nr) {
            const sl_piece piece = {.column = 0, .length = sl_min(tier->nr, to - j), .offset = j};
            const sl_epilogue e = {.bias_col = p->bias != NULL ? p->bias + j : NULL,
                                   .first = k0 == 0,
                                   .last = k0 + depth == p->k,
                                   .activation = SL_ACT_NONE};
            pack_right(tier, &p->b, b, j, piece.length, k0, depth, right);
            sl_gemm_run_panel(tier, left, rows, depth, right, tier->nr, &piece, 1, c + row0 * p->ldc, p->ldc, &e, edge);
        }
    }
    finish_rows(p, tier, c, row0, rows, from, to);
}

static void
run_thin(const sl_product *p, const cut *t, const sl_tier *tier, const float *a, const float *b, float *c,
         ptrdiff_t from, float *work)
{
    const ptrdiff_t to = sl_min(from + t->col_step, p->n);
    float *edge = work + t->left + t->right;

    lay_out_left(p, tier, a, work);
    for (ptrdiff_t j = from; j < to; j += tier->nr) {
        const ptrdiff_t at = sl_min(j, p->n - tier->nr),
                        skip = j - at; /* a panel that is not full ends with the last column */
        tier->gemm_thin(work, p->m, p->k, b + at * p->b.ld, p->b.ld, p->k, t->kblock,
                        p->bias != NULL ? p->bias + at : NULL, NULL, SL_ACT_NONE, skip > 0 ? edge : c + at,
                        skip > 0 ? tier->nr : p->ldc);
        for (ptrdiff_t i = 0; i < p->m && skip > 0; i++) {
            memcpy(c + i * p->ldc + j, edge + i * tier->nr + skip, (size_t)(to - j) * sizeof *c);
        }
    }
}

/* acc (m, n) = one block of K for the columns from `column` on. */
static void
axpy_block(const sl_product *p, const sl_tier *tier, const float *a, const float *b, ptrdiff_t column, ptrdiff_t n,
           ptrdiff_t depth, float *scratch, float *acc)
{
    memset(acc, 0, (size_t)(p->m * n) * sizeof *acc);
    if (p->b.variant.seen == SL_SEEN_PLAIN) {
        tier->axpy_rows(a, p->k, p->m, b + column, p->b.ld, depth, n, acc, n);
        return;
    }
    for (ptrdiff_t q = 0; q < depth; q += AXPY_DEPTH) {
        const ptrdiff_t some = sl_min(AXPY_DEPTH, depth - q);
        for (ptrdiff_t i = 0; i < some; i++) {
            tier->map_variant(b + (q + i) * p->b.ld + column, n, p->b.variant, scratch + i * n);
        }
        tier->axpy_rows(a + q, p->k, p->m, scratch, n, some, n, acc, n);
    }
}

static void
run_axpy(const sl_product *p, const cut *t, const sl_tier *tier, const float *a, const float *b, float *c,
         ptrdiff_t from, float *work)
{
    const ptrdiff_t n = sl_min(t->col_step, p->n - from);
    float *left = work, *scratch = left + t->left, *acc = scratch + t->right;

    lay_out_left(p, tier, a, left);
    for (ptrdiff_t k0 = 0; k0 < p->k; k0 += t->kblock) {
        axpy_block(p, tier, left + k0, b + k0 * p->b.ld, from, n, sl_min(t->kblock, p->k - k0), scratch, acc);
        for (ptrdiff_t i = 0; i < p->m; i++) {
            float *y = c + i * p->ldc + from;
            if (k0 > 0) {
                tier->map_add(y, acc + i * n, n, SL_ACT_NONE, y);
            } else if (p->bias != NULL) {
                tier->map_add(acc + i * n, p->bias + from, n, SL_ACT_NONE, y);
            } else {
                memcpy(y, acc + i * n, (size_t)n * sizeof *y);
            }
        }
    }
    finish_rows(p, tier, c, 0, p->m, from, from + n);
}

static void
run_task(const sl_product *p, const cut *t, const sl_tier *tier, ptrdiff_t task, float *work)
{
    const ptrdiff_t from = task % t->col_tiles * t->col_step, row0 = task / t->col_tiles % t->row_tiles * t->row_step;
    const ptrdiff_t matrix = task / t->col_tiles / t->row_tiles, o = matrix / p->inner, i = matrix % p->inner;
    const float *a = p->a.data + o * p->a.outer + i * p->a.inner, *b = p->b.data + o * p->b.outer + i * p->b.inner;
    float *c = p->c + o * p->c_outer + i * p->c_inner;

    if (t->way == THIN) {
        run_thin(p, t, tier, a, b, c, from, work);
    } else if (t->way == AXPY) {
        run_axpy(p, t, tier, a, b, c, from, work);
    } else {
        run_packed(p, t, tier, a, b, c, row0, from, work);
    }
}

/* k = 0: the bias, finished. */
static void
without_terms(const sl_product *p, const sl_tier *tier)
{
    for (ptrdiff_t matrix = 0; matrix < p->outer * p->inner; matrix++) {
        float *c = p->c + matrix / p->inner * p->c_outer + matrix % p->inner * p->c_inner;
        for (ptrdiff_t i = 0; i < p->m; i++) {
            for (ptrdiff_t j = 0; j < p->n; j++) {
                c[i * p->ldc + j] = p->bias != NULL ? p->bias[j] : 0.0F;
            }
        }
        finish_rows(p, tier, c, 0, p->m, 0, p->n);
    }
}

sl_status
sl_product_run(const sl_product *p, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    float *buffers;
    cut t;

    if (p->outer == 0 || p->inner == 0 || p->m == 0 || p->n == 0) {
        return SL_OK;
    }
    if (p->k == 0) {
        without_terms(p, tier);
        return SL_OK;
    }
    if (sl_tiles_get() != NULL) {
        return sl_split_product(p, NULL, NULL, SL_ACT_NONE, sl_tiles_get(), n_threads);
    }
    n_threads = p->outer * p->inner * p->m * p->n < SERIAL_BELOW / p->k ? 1 : sl_threads(n_threads);
    make_cut(p, tier, n_threads, &t);
    n_threads = (int)sl_min(n_threads, t.tasks);
    buffers = sl_alloc(n_threads * t.work, sizeof *buffers);
    if (buffers == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < t.tasks; task++) {
        run_task(p, &t, tier, task, buffers + sl_thread_index() * t.work);
    }
    sl_free(buffers);
    return SL_OK;
}
