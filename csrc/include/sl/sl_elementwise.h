/* Elementwise work and reductions of the network engine, float32.
 *
 * Everywhere: arrays are dense, y is written in full, results are bit-identical for every n_threads (each value is computed by one thread, in one
 * way), nothing is allocated.  Status: SL_OK, or SL_ERR_ARG for a negative size, n_threads < 1 or an unknown activation. */
#ifndef SL_ELEMENTWISE_H
#define SL_ELEMENTWISE_H

#include "sl_common.h"

/* NaN stays NaN in all of them.  The exponential is at most 1 ulp off (2 in the baseline tier). */
typedef enum {
    SL_ACT_NONE = 0,
    SL_ACT_RELU = 1,        /* max(x, 0) */
    SL_ACT_RELU6 = 2,       /* min(max(x, 0), 6) */
    SL_ACT_SIGMOID = 3,     /* 1 / (1 + exp(-x)) */
    SL_ACT_SILU = 4,        /* x / (1 + exp(-x)) */
    SL_ACT_HARDSIGMOID = 5, /* min(max(x + 3, 0), 6) / 6 */
    SL_ACT_HARDSWISH = 6,   /* x min(max(x + 3, 0), 6) / 6 */
    SL_ACT_GELU = 7,        /* x Phi(x), Phi the normal distribution; relative error of Phi below 1e-6 on both sides */
    SL_ACT_GELU_TANH = 8,   /* x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))) */
    SL_ACT_QUICK_GELU = 9,  /* x / (1 + exp(-1.702 x)) */
    SL_ACT_TANH = 10,
    SL_ACT_LAST = SL_ACT_TANH,
} sl_activation;

/* y[i] = act(x[i]), i < n.  y may be x. */
sl_status sl_activate_f32(const float *x, ptrdiff_t n, sl_activation activation, float *y, int n_threads);

/* y[i] = act(a[i] + b[i]).  y may be a or b. */
sl_status sl_add_f32(const float *a, const float *b, ptrdiff_t n, sl_activation activation, float *y, int n_threads);

/* y[i] = a[i] b[i].  y may be a or b. */
sl_status sl_multiply_f32(const float *a, const float *b, ptrdiff_t n, float *y, int n_threads);

/* y[r,p] = x[r,p] factor[r];  x (rows, n), factor (rows): squeeze-and-excitation with rows = batch * channels.  y may be x. */
sl_status sl_scale_rows_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, const float *factor, float *y, int n_threads);

/* y[b,c,p] = act(x[b,c,p] scale[c] + shift[c]), two roundings;  x (batch, channels, n).  y may be x. */
sl_status sl_scale_shift_f32(const float *x, ptrdiff_t batch, ptrdiff_t channels, ptrdiff_t n, const float *scale,
                             const float *shift, sl_activation activation, float *y, int n_threads);

/* y[r,:] = exp(x[r,:] - max) / sum of these;  x (rows, n).  The sum is in double; a NaN or +inf in a row makes the row NaN.  y may be x. */
sl_status sl_softmax_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, float *y, int n_threads);

typedef enum {
    SL_REDUCE_MEAN = 0,
    SL_REDUCE_MAX = 1,
    SL_REDUCE_ABSMEAN = 2,
    SL_REDUCE_ABSMAX = 3,
} sl_reduction;

/* y[r] = mean, maximum, mean magnitude or largest magnitude of x[r,:];  x (rows, n), n >= 1.  Sums in double over 16 fixed lanes, the same bits in every tier.
 * NaN where the row has a NaN.  y must not overlap x. */
sl_status sl_reduce_f32(const float *x, ptrdiff_t rows, ptrdiff_t n, sl_reduction kind, float *y, int n_threads);

/* 1 if no value of x (n) is NaN or infinite, else 0; n <= 0 gives 1.  One thread; it stops at the first block that holds one. */
int sl_all_finite_f32(const float *x, ptrdiff_t n);

/* Test helper: the largest rate of multiply-adds (two operations each) of one core in the active tier, in operations per second, measured for about
 * `seconds` of wall clock on registers alone. */
double sl_fma_peak(double seconds);

#endif
