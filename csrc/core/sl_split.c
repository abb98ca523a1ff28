/* Products on tiles: packing of split operands, and the loops around tier_split_inl.h.  Contracts: sl/sl_split.h, sl_split_private.h.
 *
 * A task is a rectangle of C.  It splits its rows of A block of K by block of K, panel after panel of B (or takes panels that were packed), and lets
 * every panel of A meet it.  Each thread configures its tiles when the parallel region begins and releases them before it ends. */
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "sl/sl_cpu.h"
#include "sl_split_private.h"

enum {
    ROWS = 480,             /* of a task: 480 x 320 split numbers are 0.9 MB of the second-level cache */
    SERIAL_BELOW = 1 << 18, /* fewer multiply-adds than this are not worth a second thread */
};

typedef struct {
    const sl_product *p;
    const float *packed, *addend;
    sl_activation activation;
    const sl_tiles *tiles;
    const sl_tier *tier;
    ptrdiff_t kblock, panel, panels; /* panels: of b */
    ptrdiff_t row_step, col_step, row_tiles, col_tiles, tasks;
    ptrdiff_t left, right, stage, work; /* floats of a thread's buffers, and of all */
} job;

static uint32_t
near_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (bits + 0x8000U) & 0xFFFF0000U;
}

void
sl_split_f32(const float *x, ptrdiff_t n, uint16_t *hi, uint16_t *mid, uint16_t *lo)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint32_t first = near_bits(x[i]);
        float part, rest;
        uint32_t second, third;
        memcpy(&part, &first, sizeof part);
        rest = x[i] - part;
        second = near_bits(rest);
        memcpy(&part, &second, sizeof part);
        rest = rest - part;
        memcpy(&third, &rest, sizeof third);
        hi[i] = (uint16_t)(first >> 16);
        mid[i] = (uint16_t)(second >> 16);
        lo[i] = (uint16_t)(third >> 16);
    }
}

static void
make_job(job *d, int n_threads)
{
    const sl_product *p = d->p;
    const ptrdiff_t batch = p->outer * p->inner;
    ptrdiff_t per;

    d->kblock = sl_gemm_kblock(p->k);
    d->panel = sl_split_panel(d->kblock);
    d->panels = sl_ceil_div(p->n, SL_SPLIT_ROWS);
    d->row_tiles = sl_ceil_div(p->m, ROWS);
    d->row_step = sl_round_up(sl_ceil_div(p->m, d->row_tiles), SL_SPLIT_ROWS);
    per = d->panels;
    while (per > 1 && batch * d->row_tiles * sl_ceil_div(d->panels, per) < 4 * (ptrdiff_t)n_threads) {
        per = sl_ceil_div(per, 2);
    }
    d->col_step = per * SL_SPLIT_ROWS;
    d->col_tiles = sl_ceil_div(p->n, d->col_step);
    d->tasks = batch * d->row_tiles * d->col_tiles;
    d->left = d->row_step / SL_SPLIT_ROWS * d->panel;
    d->right = d->packed == NULL ? d->panel : 0;
    d->stage = SL_SPLIT_ROWS * sl_round_up(d->kblock, 16);
    d->work = sl_round_up(d->left + d->right + d->stage + sl_split_work(d->kblock), 16);
}

/* Rows row0 .. row0 + rows of a, depth columns from k0, as panels. */
static void
split_left(const job *d, const float *base, ptrdiff_t row0, ptrdiff_t rows, ptrdiff_t k0, ptrdiff_t depth, float *stage,
           float *dst)
{
    const sl_operand *a = &d->p->a;

    for (ptrdiff_t i = 0; i < rows; i += SL_SPLIT_ROWS, dst += d->panel) {
        const ptrdiff_t some = sl_min(SL_SPLIT_ROWS, rows - i);
        const float *from = base + (row0 + i) * a->ld + k0;
        ptrdiff_t ld = a->ld;
        if (!a->along_k) {
            d->tiles->turn(base + k0 * a->ld + row0 + i, a->ld, depth, some, stage, depth);
            from = stage;
            ld = depth;
        }
        if (a->variant.seen != SL_SEEN_PLAIN) {
            for (ptrdiff_t r = 0; r < some; r++) {
                d->tier->map_variant(from + r * ld, depth, a->variant, stage + r * depth);
            }
            from = stage;
            ld = depth;
        }
        d->tiles->split_left(from, ld, some, depth, dst);
    }
}

/* The panel of b that begins at row j, depth columns from k0. */
static void
split_right(const job *d, const float *base, ptrdiff_t j, ptrdiff_t k0, ptrdiff_t depth, float *stage, float *dst)
{
    const sl_operand *b = &d->p->b;
    const ptrdiff_t n = sl_min(SL_SPLIT_ROWS, d->p->n - j);
    const float *from = base + k0 * b->ld + j;
    ptrdiff_t ld = b->ld;

    if (b->along_k) {
        d->tiles->turn(base + j * b->ld + k0, b->ld, n, depth, stage, SL_SPLIT_ROWS);
        from = stage;
        ld = SL_SPLIT_ROWS;
    }
    if (b->variant.seen != SL_SEEN_PLAIN) {
        for (ptrdiff_t q = 0; q < depth; q++) {
            d->tier->map_variant(from + q * ld, n, b->variant, stage + q * SL_SPLIT_ROWS);
        }
        from = stage;
        ld = SL_SPLIT_ROWS;
    }
    d->tiles->split_right(from, ld, n, depth, dst);
}

static void
finish_rows(const job *d, float *c, ptrdiff_t row0, ptrdiff_t rows, ptrdiff_t from, ptrdiff_t to)
{
    const sl_product *p = d->p;

    for (ptrdiff_t i = row0; i < row0 + rows; i++) {
        if (p->scale != 1.0F) {
            d->tier->map_scale(c + i * p->ldc + from, to - from, p->scale, c + i * p->ldc + from);
        }
        if (p->finish != NULL) {
            d->tier->map_finish(p->finish, i * p->ldc + from, to - from, c + i * p->ldc + from);
        }
    }
}

static void
run_task(const job *d, ptrdiff_t task, float *work)
{
    const sl_product *p = d->p;
    const ptrdiff_t from = task % d->col_tiles * d->col_step, row0 = task / d->col_tiles % d->row_tiles * d->row_step;
    const ptrdiff_t matrix = task / d->col_tiles / d->row_tiles, o = matrix / p->inner, i = matrix % p->inner;
    const ptrdiff_t rows = sl_min(d->row_step, p->m - row0), to = sl_min(from + d->col_step, p->n);
    const float *a = p->a.data + o * p->a.outer + i * p->a.inner, *b = p->b.data + o * p->b.outer + i * p->b.inner;
    float *c = p->c + o * p->c_outer + i * p->c_inner;
    float *left = work, *right = left + d->left, *stage = right + d->right, *own = stage + d->stage;

    for (ptrdiff_t k0 = 0; k0 < p->k; k0 += d->kblock) {
        const ptrdiff_t depth = sl_min(d->kblock, p->k - k0);
        split_left(d, a, row0, rows, k0, depth, stage, left);
        for (ptrdiff_t j = from; j < to; j += SL_SPLIT_ROWS) {
            const sl_piece piece = {.column = 0, .length = sl_min(SL_SPLIT_ROWS, to - j), .offset = j};
            const sl_epilogue e = {.bias_col = p->bias != NULL ? p->bias + j : NULL,
                                   .addend = d->addend != NULL ? d->addend + row0 * p->ldc : NULL,
                                   .ld_addend = p->ldc,
                                   .first = k0 == 0,
                                   .last = k0 + depth == p->k,
                                   .activation = d->activation};
            const float *panel = right;
            if (d->packed != NULL) {
                panel = d->packed + (k0 / d->kblock * d->panels + j / SL_SPLIT_ROWS) * d->panel;
            } else {
                split_right(d, b, j, k0, depth, stage, right);
            }
            d->tiles->run_panel(d->tiles, d->tier, left, d->panel, rows, depth, panel, &piece, 1, c + row0 * p->ldc,
                                p->ldc, &e, own);
        }
    }
    finish_rows(d, c, row0, rows, from, to);
}

sl_status
sl_split_product(const sl_product *p, const float *packed, const float *addend, sl_activation activation,
                 const sl_tiles *tiles, int n_threads)
{
    job d = {
        .p = p, .packed = packed, .addend = addend, .activation = activation, .tiles = tiles, .tier = sl_tier_get()};
    float *buffers;

    n_threads = p->outer * p->inner * p->m * p->n < SERIAL_BELOW / p->k ? 1 : sl_threads(n_threads);
    make_job(&d, n_threads);
    n_threads = (int)sl_min(n_threads, d.tasks);
    buffers = sl_alloc(n_threads * d.work, sizeof *buffers);
    if (buffers == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
    {
        tiles->begin();
#pragma omp for schedule(dynamic, 1)
        for (ptrdiff_t task = 0; task < d.tasks; task++) {
            run_task(&d, task, buffers + sl_thread_index() * d.work);
        }
        tiles->end();
    }
    sl_free(buffers);
    return SL_OK;
}

sl_status
sl_split_rates(double seconds, double *left, double *right)
{
    enum { ROUNDS = 64 };
    const sl_tiles *tiles = sl_tiles_get();
    const ptrdiff_t floats = SL_SPLIT_ROWS * SL_GEMM_KC;
    double best[2] = {0.0, 0.0};
    float *x, *panel;

    if (tiles == NULL) {
        return SL_ERR_ARG;
    }
    x = sl_alloc(floats, sizeof *x);
    panel = sl_alloc(sl_split_panel(SL_GEMM_KC), sizeof *panel);
    for (ptrdiff_t i = 0; i < floats && x != NULL; i++) {
        x[i] = 1.0F + (float)i / 3.0F;
    }
    for (int side = 0; side < 2 && x != NULL && panel != NULL; side++) {
        const double end = sl_now() + seconds;
        double start = sl_now();
        do {
            for (int r = 0; r < ROUNDS; r++) {
                if (side == 0) {
                    tiles->split_left(x, SL_GEMM_KC, SL_SPLIT_ROWS, SL_GEMM_KC, panel);
                } else {
                    tiles->split_right(x, SL_SPLIT_ROWS, SL_SPLIT_ROWS, SL_GEMM_KC, panel);
                }
            }
            const double stop = sl_now(), rate = (double)(ROUNDS * floats) * sizeof *x / (stop - start);
            best[side] = rate > best[side] ? rate : best[side];
            start = stop;
        } while (start < end);
    }
    *left = best[0];
    *right = best[1];
    sl_free(panel);
    sl_free(x);
    return best[1] > 0.0 ? SL_OK : SL_ERR_NOMEM;
}

void
sl_split_pack_right(const float *w, ptrdiff_t n, ptrdiff_t k, ptrdiff_t kblock, const sl_tiles *tiles, float *packed)
{
    const ptrdiff_t panel = sl_split_panel(kblock);
    float stage[SL_SPLIT_ROWS * SL_GEMM_KC];

    for (ptrdiff_t k0 = 0; k0 < k; k0 += kblock) {
        const ptrdiff_t depth = sl_min(kblock, k - k0);
        for (ptrdiff_t j = 0; j < n; j += SL_SPLIT_ROWS, packed += panel) {
            const ptrdiff_t some = sl_min(SL_SPLIT_ROWS, n - j);
            memset(packed, 0, (size_t)panel * sizeof *packed); /* all bytes of packed weights are defined */
            tiles->turn(w + j * k + k0, k, some, depth, stage, SL_SPLIT_ROWS);
            tiles->split_right(stage, SL_SPLIT_ROWS, some, depth, packed);
        }
    }
}

void
sl_split_pack_left(const float *w, ptrdiff_t rows, ptrdiff_t k, ptrdiff_t kblock, sl_variant variant,
                   const sl_tiles *tiles, float *packed)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t panel = sl_split_panel(kblock);
    float stage[SL_SPLIT_ROWS * SL_GEMM_KC];

    for (ptrdiff_t k0 = 0; k0 < k; k0 += kblock) {
        const ptrdiff_t depth = sl_min(kblock, k - k0);
        for (ptrdiff_t i = 0; i < rows; i += SL_SPLIT_ROWS, packed += panel) {
            const ptrdiff_t some = sl_min(SL_SPLIT_ROWS, rows - i);
            memset(packed, 0, (size_t)panel * sizeof *packed);
            for (ptrdiff_t r = 0; r < some; r++) {
                tier->map_variant(w + (i + r) * k + k0, depth, variant, stage + r * depth);
            }
            tiles->split_left(stage, depth, some, depth, packed);
        }
    }
}
