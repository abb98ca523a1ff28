/* Elementwise work and reductions.  Contract: sl_elementwise.h.  Inner loops: tier_elementwise_inl.h. */
#include "sl/sl_elementwise.h"

#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_gemm_private.h"

enum {
    BLOCK = 1 << 14,       /* floats of a block: what one thread takes at a time */
    SERIAL_BELOW = 1 << 16 /* fewer floats than this are not worth a second thread */
};

static int
valid(ptrdiff_t n, sl_activation activation, int n_threads)
{
    return n >= 0 && n_threads >= 1 && (int)activation >= SL_ACT_NONE && (int)activation <= SL_ACT_LAST;
}

static int
threads_for(ptrdiff_t floats, int n_threads)
{
    return floats < SERIAL_BELOW ? 1 : sl_threads(n_threads);
}

sl_status
sl_activate_f32(const float *x, ptrdiff_t n, sl_activation activation, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (!valid(n, activation, n_threads)) {
        return SL_ERR_ARG;
    }
    n_threads = threads_for(n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < n; i += BLOCK) {
        tier->map_activate(x + i, sl_min(BLOCK, n - i), activation, y + i);
    }
    return SL_OK;
}

sl_status
sl_add_f32(const float *a, const float *b, ptrdiff_t n, sl_activation activation, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (!valid(n, activation, n_threads)) {
        return SL_ERR_ARG;
    }
    n_threads = threads_for(n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < n; i += BLOCK) {
        tier->map_add(a + i, b + i, sl_min(BLOCK, n - i), activation, y + i);
    }
    return SL_OK;
}

sl_status
sl_multiply_f32(const float *a, const float *b, ptrdiff_t n, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (!valid(n, SL_ACT_NONE, n_threads)) {
        return SL_ERR_ARG;
    }
    n_threads = threads_for(n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t i = 0; i < n; i += BLOCK) {
        tier->map_multiply(a + i, b + i, sl_min(BLOCK, n - i), y + i);
    }
    return SL_OK;
}

sl_status
sl_scale_rows_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, const float *factor, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (!valid(n, SL_ACT_NONE, n_threads) || rows < 0) {
        return SL_ERR_ARG;
    }
    n_threads = threads_for(rows * n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t r = 0; r < rows; r++) {
        tier->map_scale(x + r * n, n, factor[r], y + r * n);
    }
    return SL_OK;
}

sl_status
sl_scale_shift_f32(const float *x, ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t n, const float *scale,
                   const float *shift, sl_activation activation, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (!valid(n, activation, n_threads) || batch < 0 || channels < 0) {
        return SL_ERR_ARG;
    }
    n_threads = threads_for(batch * channels * n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t r = 0; r < batch * channels; r++) {
        tier->map_scale_shift(x + r * n, n, scale[r % channels], shift[r % channels], activation, y + r * n);
    }
    return SL_OK;
}

sl_status
sl_softmax_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (!valid(n, SL_ACT_NONE, n_threads) || rows < 0) {
        return SL_ERR_ARG;
    }
    if (n == 0) {
        return SL_OK;
    }
    n_threads = threads_for(rows * n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t r = 0; r < rows; r++) {
        tier->softmax_row(x + r * n, n, y + r * n);
    }
    return SL_OK;
}

static float
reduce_row(const sl_tier *tier, const float *x, ptrdiff_t n, sl_reduction kind)
{
    const int magnitude = kind == SL_REDUCE_ABSMEAN || kind == SL_REDUCE_ABSMAX;

    if (kind == SL_REDUCE_MAX || kind == SL_REDUCE_ABSMAX) {
        return tier->reduce_max(x, n, magnitude);
    }
    return (float)(tier->reduce_sum(x, n, magnitude) / (double)n);
}

sl_status
sl_reduce_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, sl_reduction kind, float *y, int n_threads)
{
    const sl_tier *tier = sl_tier_get();

    if (rows < 0 || n < 1 || n_threads < 1 || (int)kind < SL_REDUCE_MEAN || (int)kind > SL_REDUCE_ABSMAX) {
        return SL_ERR_ARG;
    }
    n_threads = threads_for(rows * n, n_threads);
#pragma omp parallel for num_threads(n_threads) if (n_threads > 1) schedule(static)
    for (ptrdiff_t r = 0; r < rows; r++) {
        y[r] = reduce_row(tier, x + r * n, n, kind);
    }
    return SL_OK;
}

double
sl_fma_peak(double seconds)
{
    const sl_tier *tier = sl_tier_get();
    const ptrdiff_t rounds = 200000;
    const double end = sl_now() + seconds;
    volatile float sink = 0.0F;
    double best = 0.0, start = sl_now();

    do {
        sink = sink + tier->peak_loop(rounds);
        const double stop = sl_now(),
                     rate = 2.0 * (double)rounds * (double)(tier->peak_chains * tier->lanes) / (stop - start);
        best = rate > best ? rate : best;
        start = stop;
    } while (start < end);
    return best;
}

/* Not 0 if a value is NaN or infinite: these have all bits of the exponent set, and only then one more carries into the sign. */
static uint32_t
carried(const float *x, ptrdiff_t n)
{
    uint32_t found = 0;

    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        found |= (bits & 0x7F800000U) + 0x00800000U;
    }
    return found & 0x80000000U;
}

int
sl_all_finite_f32(const float *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += BLOCK) {
        if (carried(x + i, sl_min(BLOCK, n - i)) != 0) {
            return 0;
        }
    }
    return 1;
}
