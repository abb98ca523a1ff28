/* Dense layers.  Contract: sl_gemm.h.
 *
 * x is the left operand, packed once per 960 rows; panels of w are packed as they are used, or were packed beforehand.  A task is a rectangle of y. */
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"
#include "sl_split_private.h"

enum {
    ROWS_AT_A_TIME = 960,   /* of x, packed at a time */
    SERIAL_BELOW = 1 << 18, /* fewer multiply-adds than this are not worth a second thread */
};

typedef struct {
    const float *x, *w, *packed, *bias;
    float *y;
    ptrdiff_t k, n, kblock;
    sl_activation activation;
} job;

static sl_pack_header
header_of(ptrdiff_t n, ptrdiff_t k)
{
    const sl_tier *tier = sl_tier_get();
    sl_pack_header header = {.kind = SL_PACK_DENSE,
                             .lanes = tier->lanes,
                             .width = tier->nr,
                             .kblock = (int32_t)sl_gemm_kblock(k),
                             .size = {n, k}};

    memcpy(header.magic, SL_PACK_MAGIC, sizeof header.magic);
    sl_split_mark(&header);
    return header;
}

sl_status
sl_dense_packed_size(ptrdiff_t n, ptrdiff_t k, ptrdiff_t *size)
{
    ptrdiff_t floats, bytes;

    if (n < 0 || k < 0) {
        return SL_ERR_ARG;
    }
    if (n > PTRDIFF_MAX / 2 || sl_mul(sl_round_up(n, sl_tier_get()->nr), k, &floats) < 0 ||
        sl_mul(floats, 2 * (ptrdiff_t)sizeof(float), &bytes) < 0) {
        return SL_ERR_OVERFLOW;
    }
    if (sl_tiles_get() != NULL && k > 0) {
        /* less than twice as many numbers, and a last block and panel that are not full */
        if (n > PTRDIFF_MAX / 64 / k - 4096) {
            return SL_ERR_OVERFLOW;
        }
        floats = sl_split_operand(n, k, sl_gemm_kblock(k));
    }
    *size = SL_PACK_HEADER + floats;
    return SL_OK;
}

sl_status
sl_dense_pack_f32(const float *w, ptrdiff_t n, ptrdiff_t k, float *packed)
{
    const sl_tier *tier = sl_tier_get();
    const sl_pack_header header = header_of(n, k);
    const ptrdiff_t kblock = sl_gemm_kblock(k), width = sl_round_up(n, tier->nr);

    if (n < 0 || k < 0) {
        return SL_ERR_ARG;
    }
    memset(packed, 0, SL_PACK_HEADER * sizeof *packed);
    memcpy(packed, &header, sizeof header);
    packed += SL_PACK_HEADER;
    if (sl_tiles_get() != NULL) {
        sl_split_pack_right(w, n, k, kblock, sl_tiles_get(), packed);
        return SL_OK;
    }
    for (ptrdiff_t k0 = 0; k0 < k; k0 += kblock) {
        const ptrdiff_t depth = sl_min(kblock, k - k0);
        for (ptrdiff_t j = 0; j < n; j += tier->nr) {
            tier->pack_b(w + j * k + k0, k, sl_min(tier->nr, n - j), depth, packed + k0 * width + j * depth);
        }
    }
    return SL_OK;
}

sl_status
sl_dense_packed_check(ptrdiff_t n, ptrdiff_t k, const float *packed, ptrdiff_t size)
{
    const sl_pack_header header = header_of(n, k);
    ptrdiff_t expected = 0;
    const sl_status status = sl_dense_packed_size(n, k, &expected);

    if (status != SL_OK) {
        return status;
    }
    return size == expected && memcmp(packed, &header, sizeof header) == 0 ? SL_OK : SL_ERR_ARG;
}

/* Rows row0 .. row0 + rows of the m packed ones, columns from .. to of y; y points to row 0 of the packed ones. */
static void
run_task(const job *d, const sl_tier *tier, const float *left, ptrdiff_t m, ptrdiff_t row0, ptrdiff_t rows,
         ptrdiff_t from, ptrdiff_t to, float *y, float *panel, float *edge)
{
    const ptrdiff_t height = sl_round_up(m, tier->mr), width = sl_round_up(d->n, tier->nr);

    for (ptrdiff_t k0 = 0; k0 < d->k; k0 += d->kblock) {
        const ptrdiff_t depth = sl_min(d->kblock, d->k - k0);
        const float *a = left + k0 * height + row0 * depth;
        for (ptrdiff_t j = from; j < to; j += tier->nr) {
            const sl_piece piece = {.column = 0, .length = sl_min(tier->nr, to - j), .offset = j};
            const sl_epilogue e = {.bias_col = d->bias != NULL ? d->bias + j : NULL,
                                   .first = k0 == 0,
                                   .last = k0 + depth == d->k,
                                   .activation = d->activation};
            const float *b = panel;
            if (d->packed != NULL) {
                b = d->packed + k0 * width + j * depth;
            } else {
                tier->pack_b(d->w + j * d->k + k0, d->k, piece.length, depth, panel);
            }
            sl_gemm_run_panel(tier, a, rows, depth, b, tier->nr, &piece, 1, y + row0 * d->n, d->n, &e, edge);
        }
    }
}

/* Packs m rows of x, block of K by block of K. */
static void
pack_left(const job *d, const sl_tier *tier, const float *x, ptrdiff_t m, float *left, int n_threads)
{
    const ptrdiff_t height = sl_round_up(m, tier->mr);

#pragma omp parallel for num_threads(n_threads) if (n_threads > 1 && m * d->k > (1 << 17)) schedule(static)
    for (ptrdiff_t i = 0; i < m; i += tier->mr) {
        for (ptrdiff_t k0 = 0; k0 < d->k; k0 += d->kblock) {
            const ptrdiff_t depth = sl_min(d->kblock, d->k - k0);
            tier->pack_a(x + i * d->k + k0, d->k, sl_min(tier->mr, m - i), depth, left + k0 * height + i * depth);
        }
    }
}

/* Few rows: nothing is packed but the columns that do not fill a panel. */
static void
run_thin(const job *d, const sl_tier *tier, ptrdiff_t m, float *work, ptrdiff_t each, int n_threads)
{
    const ptrdiff_t whole = d->n / tier->nr, height = sl_round_up(m, tier->mr);

#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t panel = 0; panel < whole; panel++) {
        const ptrdiff_t j = panel * tier->nr;
        tier->gemm_thin(d->x, m, d->k, d->w + j * d->k, d->k, d->k, d->kblock, d->bias != NULL ? d->bias + j : NULL,
                        d->activation, d->y + j, d->n);
    }
    if (whole * tier->nr < d->n) {
        float *own = work + height * d->k;
        pack_left(d, tier, d->x, m, work, 1);
        run_task(d, tier, work, m, 0, m, whole * tier->nr, d->n, d->y, own, own + each);
    }
}

/* Columns of y per task: few panels where each is used for few rows only, more where the left block should be used often. */
static ptrdiff_t
columns_per_task(const job *d, const sl_tier *tier, ptrdiff_t m, ptrdiff_t row_tiles, int n_threads)
{
    const ptrdiff_t panels = sl_ceil_div(d->n, tier->nr);
    ptrdiff_t each = m <= 8 ? 1 : 12;

    while (each > 1 && row_tiles * sl_ceil_div(panels, each) < 4 * (ptrdiff_t)n_threads) {
        each--;
    }
    return each * tier->nr;
}

/* y = act(bias) for k = 0. */
static void
without_terms(const job *d, const sl_tier *tier, ptrdiff_t m)
{
    for (ptrdiff_t i = 0; i < m; i++) {
        for (ptrdiff_t j = 0; j < d->n; j++) {
            d->y[i * d->n + j] = d->bias != NULL ? d->bias[j] : 0.0F;
        }
        tier->map_activate(d->y + i * d->n, d->n, d->activation, d->y + i * d->n);
    }
}

static void
run_rows(const job *d, const sl_tier *tier, ptrdiff_t first, ptrdiff_t m, float *work, ptrdiff_t left_floats,
         ptrdiff_t each, int n_threads)
{
    const ptrdiff_t mc = SL_GEMM_MC / tier->mr * tier->mr, row_tiles = sl_ceil_div(m, mc);
    const ptrdiff_t columns = columns_per_task(d, tier, m, row_tiles, n_threads),
                    tasks = row_tiles * sl_ceil_div(d->n, columns);
    const ptrdiff_t panel_floats = tier->nr * d->kblock;

    pack_left(d, tier, d->x + first * d->k, m, work, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        const ptrdiff_t row0 = task % row_tiles * mc, from = task / row_tiles * columns;
#ifdef _OPENMP
        float *own = work + left_floats + omp_get_thread_num() * each;
#else
        float *own = work + left_floats;
#endif
        run_task(d, tier, work, m, row0, sl_min(mc, m - row0), from, sl_min(from + columns, d->n), d->y + first * d->n,
                 own, own + sl_round_up(panel_floats, 16));
    }
}

/* On tiles. */
static sl_status
run_split(const job *d, ptrdiff_t m, int n_threads)
{
    const sl_product p = {.outer = 1,
                          .inner = 1,
                          .m = m,
                          .n = d->n,
                          .k = d->k,
                          .a = {.data = d->x, .ld = d->k, .along_k = 1},
                          .b = {.data = d->w, .ld = d->k, .along_k = 1},
                          .c = d->y,
                          .ldc = d->n,
                          .bias = d->bias,
                          .scale = 1.0F};

    return m > 0 && d->n > 0 ? sl_split_product(&p, d->packed, NULL, d->activation, sl_tiles_get(), n_threads) : SL_OK;
}

sl_status
sl_dense_f32(const float *x, ptrdiff_t m, ptrdiff_t k, const float *w, ptrdiff_t n, const float *packed,
             const float *bias, sl_activation activation, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    const job d = {
        x,         w, packed != NULL ? packed + SL_PACK_HEADER : NULL, bias, y, k, n, k > 0 ? sl_gemm_kblock(k) : 0,
        activation};
    const ptrdiff_t rows = sl_min(m, ROWS_AT_A_TIME);
    ptrdiff_t size, each, left_floats;
    float *work = NULL;
    sl_status status = sl_dense_packed_size(n, k, &size);

    if (status == SL_OK && (sl_mul(m, k, &each) < 0 || sl_mul(m, n, &each) < 0)) {
        status = m < 0 ? SL_ERR_ARG : SL_ERR_OVERFLOW;
    }
    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || (int)activation < SL_ACT_NONE || (int)activation > SL_ACT_LAST ||
        (packed != NULL && sl_dense_packed_check(n, k, packed, size) != SL_OK)) {
        return SL_ERR_ARG;
    }
    if (k == 0) {
        without_terms(&d, tier, m);
        return SL_OK;
    }
    if (sl_tiles_get() != NULL) {
        return run_split(&d, m, n_threads);
    }
    n_threads = m * n < SERIAL_BELOW / k ? 1 : sl_threads(n_threads);
    left_floats = sl_round_up(sl_round_up(rows, tier->mr) * k, 16);
    each = sl_round_up(tier->nr * d.kblock, 16) + sl_round_up(sl_min(rows, SL_GEMM_MC) * tier->nr, 16);
    work = sl_alloc(left_floats + n_threads * each, sizeof *work);
    if (work == NULL) {
        return SL_ERR_NOMEM;
    }
    if (m > 0 && m <= SL_THIN_ROWS && packed == NULL) {
        run_thin(&d, tier, m, work, sl_round_up(tier->nr * d.kblock, 16), n_threads);
        m = 0;
    }
    for (ptrdiff_t first = 0; first < m; first += ROWS_AT_A_TIME) {
        run_rows(&d, tier, first, sl_min(ROWS_AT_A_TIME, m - first), work, left_floats, each, n_threads);
    }
    sl_free(work);
    return SL_OK;
}
