/* Dense layers.  Contract: sl_gemm.h.
 *
 * x is read where it lies; panels of w are packed as they are used, or were packed beforehand.  A task is a rectangle of y, whose panels of one block
 * of K stay in the second-level cache while the rows pass by. */
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"
#include "sl_split_private.h"

enum {
    TASK_ROWS = 480,        /* most rows of a task */
    TASK_PANELS = 12,       /* most panels of a task: 12 x 16 columns x 320 floats = 245 kB of the second-level cache */
    SERIAL_BELOW = 1 << 18, /* fewer multiply-adds than this are not worth a second thread */
};

typedef struct {
    const float *x, *w, *packed, *bias, *addend;
    float *y;
    ptrdiff_t m, k, n, kblock;
    ptrdiff_t rows, panels;      /* of a task */
    ptrdiff_t right, edge, each; /* floats of a thread's packed panels, of its last columns, of both */
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

/* Packed panels first .. first + panels of w, one block of K. */
static const float *
panels_of(const job *d, const sl_tier *tier, ptrdiff_t k0, ptrdiff_t depth, ptrdiff_t first, ptrdiff_t panels,
          float *own)
{
    if (d->packed != NULL) {
        return d->packed + k0 * sl_round_up(d->n, tier->nr) + first * tier->nr * depth;
    }
    for (ptrdiff_t j = first * tier->nr; j < sl_min((first + panels) * tier->nr, d->n); j += tier->nr) {
        tier->pack_b(d->w + j * d->k + k0, d->k, sl_min(tier->nr, d->n - j), depth, own);
        own += tier->nr * depth;
    }
    return own - panels * tier->nr * depth;
}

static void
copy_columns(const float *src, ptrdiff_t ld_src, ptrdiff_t rows, ptrdiff_t columns, float *dst, ptrdiff_t ld_dst)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        memcpy(dst + i * ld_dst, src + i * ld_src, (size_t)columns * sizeof *dst);
    }
}

/* A rectangle of y; columns that do not fill a panel are summed in `edge`. */
static void
run_task(const job *d, const sl_tier *tier, ptrdiff_t row0, ptrdiff_t rows, ptrdiff_t first, ptrdiff_t panels,
         float *own)
{
    const ptrdiff_t nr = tier->nr, whole = sl_min(panels, d->n / nr - first), from = (first + whole) * nr,
                    rest = panels > whole ? d->n - from : 0;
    float *edge = own + d->right, bias[SL_NR_MAX] = {0.0F}, *y = d->y + row0 * d->n;
    const float *addend = d->addend != NULL ? d->addend + row0 * d->n : NULL;

    if (rest > 0 && d->bias != NULL) {
        memcpy(bias, d->bias + from, (size_t)rest * sizeof *bias);
    }
    if (rest > 0 && addend != NULL) {
        copy_columns(addend + from, d->n, rows, rest, edge, nr);
    }
    for (ptrdiff_t k0 = 0; k0 < d->k; k0 += d->kblock) {
        const ptrdiff_t depth = sl_min(d->kblock, d->k - k0);
        const float *x = d->x + row0 * d->k + k0, *b = panels_of(d, tier, k0, depth, first, panels, own);
        sl_epilogue e = {.bias_col = d->bias != NULL ? d->bias + first * nr : NULL,
                         .addend = addend != NULL ? addend + first * nr : NULL,
                         .ld_addend = d->n,
                         .first = k0 == 0,
                         .last = k0 + depth == d->k,
                         .activation = d->activation};
        tier->gemm_direct(x, d->k, rows, depth, b, whole, y + first * nr, d->n, &e);
        if (rest > 0) {
            e.bias_col = d->bias != NULL ? bias : NULL;
            e.addend = addend != NULL ? edge : NULL;
            e.ld_addend = nr;
            tier->gemm_direct(x, d->k, rows, depth, b + whole * nr * depth, 1, edge, nr, &e);
        }
    }
    if (rest > 0) {
        copy_columns(edge, nr, rows, rest, y + from, d->n);
    }
}

/* Few rows: nothing is packed but the columns that do not fill a panel. */
static void
run_thin(const job *d, const sl_tier *tier, float *work, int n_threads)
{
    const ptrdiff_t nr = tier->nr, whole = d->n / nr;

#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t panel = 0; panel < whole; panel++) {
        const ptrdiff_t j = panel * nr;
        tier->gemm_thin(d->x, d->m, d->k, d->w + j * d->k, d->k, d->k, d->kblock, d->bias != NULL ? d->bias + j : NULL,
                        d->addend != NULL ? d->addend + j : NULL, d->activation, d->y + j, d->n);
    }
    if (whole * nr < d->n) {
        run_task(d, tier, 0, d->m, whole, 1, work);
    }
}

/* y = act(bias + addend) for k = 0. */
static void
without_terms(const job *d, const sl_tier *tier)
{
    for (ptrdiff_t i = 0; i < d->m; i++) {
        float *y = d->y + i * d->n;
        for (ptrdiff_t j = 0; j < d->n; j++) {
            y[j] = (d->bias != NULL ? d->bias[j] : 0.0F) + (d->addend != NULL ? d->addend[i * d->n + j] : 0.0F);
        }
        tier->map_activate(y, d->n, d->activation, y);
    }
}

/* Rows and panels of a task: as many as the caches like, fewer where there would not be work for all threads. */
static void
cut_tasks(job *d, const sl_tier *tier, int n_threads)
{
    const ptrdiff_t panels = sl_ceil_div(d->n, tier->nr), least = n_threads > 1 ? 4 * (ptrdiff_t)n_threads : 1;
    const ptrdiff_t row_tasks = sl_ceil_div(d->m, TASK_ROWS);

    d->rows = sl_round_up(sl_ceil_div(d->m, row_tasks), tier->mr);
    d->panels = sl_ceil_div(panels, sl_ceil_div(panels, TASK_PANELS));
    while (d->panels > 1 && row_tasks * sl_ceil_div(panels, d->panels) < least) {
        d->panels--;
    }
    d->right = d->packed == NULL ? sl_round_up(d->panels * tier->nr * d->kblock, 16) : 0;
    d->edge = d->n % tier->nr != 0 ? sl_round_up(sl_min(d->rows, d->m) * tier->nr, 16) : 0;
    d->each = d->right + d->edge;
}

static void
run_tasks(const job *d, const sl_tier *tier, float *work, int n_threads)
{
    const ptrdiff_t panels = sl_ceil_div(d->n, tier->nr), row_tasks = sl_ceil_div(d->m, d->rows),
                    tasks = row_tasks * sl_ceil_div(panels, d->panels);

#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(dynamic, 1)
    for (ptrdiff_t task = 0; task < tasks; task++) {
        const ptrdiff_t row0 = task % row_tasks * d->rows, first = task / row_tasks * d->panels;
        run_task(d, tier, row0, sl_min(d->rows, d->m - row0), first, sl_min(d->panels, panels - first),
                 work + sl_thread_index() * d->each);
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

    return m > 0 && d->n > 0 ? sl_split_product(&p, d->packed, d->addend, d->activation, sl_tiles_get(), n_threads)
                             : SL_OK;
}

sl_status
sl_dense_f32(const float *x, ptrdiff_t m, ptrdiff_t k, const float *w, ptrdiff_t n, const float *packed,
             const float *bias, const float *addend, sl_activation activation, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    job d = {.x = x,
             .w = w,
             .packed = packed != NULL ? packed + SL_PACK_HEADER : NULL,
             .bias = bias,
             .addend = addend,
             .y = y,
             .m = m,
             .k = k,
             .n = n,
             .kblock = k > 0 ? sl_gemm_kblock(k) : 0,
             .activation = activation};
    ptrdiff_t size;
    float *work = NULL;
    sl_status status = sl_dense_packed_size(n, k, &size);

    if (status == SL_OK) {
        ptrdiff_t count;
        if (m < 0) {
            status = SL_ERR_ARG;
        } else if (sl_mul(m, k, &count) < 0 || sl_mul(m, n, &count) < 0) {
            status = SL_ERR_OVERFLOW;
        }
    }
    if (status != SL_OK) {
        return status;
    }
    if (n_threads < 1 || (int)activation < SL_ACT_NONE || (int)activation > SL_ACT_LAST ||
        (packed != NULL && sl_dense_packed_check(n, k, packed, size) != SL_OK)) {
        return SL_ERR_ARG;
    }
    if (k == 0 || m == 0 || n == 0) {
        without_terms(&d, tier);
        return SL_OK;
    }
    if (sl_tiles_get() != NULL) {
        return run_split(&d, m, n_threads);
    }
    n_threads = m * n < SERIAL_BELOW / k ? 1 : sl_threads(n_threads);
    cut_tasks(&d, tier, n_threads);
    work = sl_alloc(n_threads * d.each, sizeof *work);
    if (work == NULL) {
        return SL_ERR_NOMEM;
    }
    if (m <= SL_THIN_ROWS && packed == NULL) {
        run_thin(&d, tier, work, n_threads);
    } else {
        run_tasks(&d, tier, work, n_threads);
    }
    sl_free(work);
    return SL_OK;
}
