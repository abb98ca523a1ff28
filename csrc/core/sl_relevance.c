/* Elementwise work of relevance propagation.  Contract: sl_relevance.h.  Inner loops: tier_relevance_inl.h. */
#include "sl/sl_relevance.h"

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"

enum {
    BLOCK = 1 << 13,       /* floats of a block: what one thread takes at a time */
    SERIAL_BELOW = 1 << 16 /* fewer floats than this are not worth a second thread */
};

/* Blocks of a row, or -1 for sizes that cannot be. */
static ptrdiff_t
blocks_of(ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n, ptrdiff_t *total)
{
    ptrdiff_t rows = 0;

    if (batch < 0 || repeats < 0 || n < 0 || sl_mul(batch, repeats, &rows) < 0 || sl_mul(rows, n, total) < 0) {
        return -1;
    }
    return sl_ceil_div(n, BLOCK);
}

sl_status
sl_relevance_quotient_f32(const float *r, const float *z, ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n, float eps,
                          int clip, float *s, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    ptrdiff_t total = 0;
    const ptrdiff_t blocks = blocks_of(batch, repeats, n, &total);

    if (blocks < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    n_threads = total < SERIAL_BELOW ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < batch * repeats * blocks; i++) {
        const ptrdiff_t row = i / blocks, start = i % blocks * BLOCK;
        tier->map_quotient(r + row * n + start, z + row / repeats * n + start, sl_min(BLOCK, n - start), eps, clip,
                           s + row * n + start);
    }
    return SL_OK;
}

sl_status
sl_relevance_times_f32(const float *g, const float *x, ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n, sl_seen part,
                       float scale, const float *sum, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    ptrdiff_t total = 0;
    const ptrdiff_t blocks = blocks_of(batch, repeats, n, &total);

    if (blocks < 0 || n_threads < 1 ||
        (part != SL_SEEN_PLAIN && part != SL_SEEN_POSITIVE && part != SL_SEEN_NEGATIVE)) {
        return SL_ERR_ARG;
    }
    n_threads = total < SERIAL_BELOW ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < batch * repeats * blocks; i++) {
        const ptrdiff_t row = i / blocks, start = i % blocks * BLOCK;
        tier->map_times(g + row * n + start, x + row / repeats * n + start, sum == NULL ? NULL : sum + row * n + start,
                        sl_min(BLOCK, n - start), part, scale, y + row * n + start);
    }
    return SL_OK;
}

sl_status
sl_relevance_by_sign_f32(const float *r, const float *z, ptrdiff_t batch, ptrdiff_t repeats, ptrdiff_t n, float *above,
                         float *below, int *found, int n_threads)
{
    const sl_tier *tier = sl_tier_get();
    ptrdiff_t total = 0;
    const ptrdiff_t blocks = blocks_of(batch, repeats, n, &total);
    int bits = 0;

    if (blocks < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    n_threads = total < SERIAL_BELOW ? 1 : sl_threads(n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static) reduction(| : bits)
    for (ptrdiff_t i = 0; i < batch * repeats * blocks; i++) {
        const ptrdiff_t row = i / blocks, start = i % blocks * BLOCK, at = row * n + start;
        bits |=
            tier->map_by_sign(r + at, z + row / repeats * n + start, sl_min(BLOCK, n - start), above + at, below + at);
    }
    *found = bits;
    return SL_OK;
}
