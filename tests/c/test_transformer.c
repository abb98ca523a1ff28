/* sl_transformer.h: against double loops, for every thread count, with failing memory. */
#include "sl/sl_transformer.h"

#include <math.h>
#include <string.h>

#include "check.h"

enum { PAIRS = 6, QUERIES = 101, KEYS = 131, WIDTH = 19, DEPTH = 37, MOST = PAIRS * KEYS * QUERIES };

static float q[MOST], k[MOST], v[MOST], bias[MOST], y[MOST], again[MOST];

static void
fill(float *x, ptrdiff_t n, unsigned seed)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        seed = seed * 1664525U + 1013904223U;
        x[i] = (float)(seed >> 8) / 8388608.0F - 1.0F;
    }
}

static double
expected(const sl_attention_shape *s, ptrdiff_t p, ptrdiff_t i, ptrdiff_t e, int with_bias)
{
    const ptrdiff_t n = s->causal ? i + 1 + s->keys - s->queries : s->keys;
    double total = 0.0, sum = 0.0;

    for (ptrdiff_t j = 0; j < n; j++) {
        double score = 0.0;
        for (ptrdiff_t d = 0; d < s->width; d++) {
            score += (double)q[(p * s->queries + i) * s->width + d] * (double)k[(p * s->keys + j) * s->width + d];
        }
        score = score * (double)s->scale +
                (with_bias ? (double)bias[(p % s->bias_pairs * s->queries + i) * s->keys + j] : 0.0);
        total += exp(score);
        sum += exp(score) * (double)v[(p * s->keys + j) * s->depth + e];
    }
    return sum / total;
}

static void
attention(ptrdiff_t queries, int causal, int with_bias)
{
    const sl_attention_shape s = {PAIRS, queries, KEYS, WIDTH, DEPTH, 3, KEYS * WIDTH, KEYS * DEPTH, 0.3F, causal};
    const float *b = with_bias ? bias : NULL;
    int wrong = 0;

    CHECK(sl_attention_f32(&s, q, k, v, b, y, 1) == SL_OK);
    for (int threads = 2; threads <= 8; threads++) {
        memset(again, 0xff, sizeof again);
        CHECK(sl_attention_f32(&s, q, k, v, b, again, threads) == SL_OK);
        CHECK(memcmp(y, again, (size_t)(PAIRS * queries * DEPTH) * sizeof *y) == 0);
    }
    for (ptrdiff_t at = 0; at < PAIRS * queries * DEPTH; at += 7) {
        const double want = expected(&s, at / (queries * DEPTH), at / DEPTH % queries, at % DEPTH, with_bias);
        wrong += !(fabs((double)y[at] - want) <= 2e-6);
    }
    CHECK(wrong == 0);
}

static void
norms(void)
{
    const ptrdiff_t rows = 37, n = 45;
    double mean = 0.0, square = 0.0;

    CHECK(sl_norm_rows_f32(q, rows, n, 1e-5, 1, k, v, y, 3) == SL_OK);
    for (ptrdiff_t i = 0; i < n; i++) {
        mean += (double)q[7 * n + i] / (double)n;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        square += ((double)q[7 * n + i] - mean) * ((double)q[7 * n + i] - mean) / (double)n;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        CHECK_NEAR((double)y[7 * n + i],
                   ((double)q[7 * n + i] - mean) / sqrt(square + 1e-5) * (double)k[i] + (double)v[i], 1e-5);
    }
    memcpy(again, q, sizeof again);
    CHECK(sl_norm_rows_f32(again, rows, n, 1e-5, 1, k, v, again, 1) == SL_OK);
    CHECK(memcmp(again, y, (size_t)(rows * n) * sizeof *y) == 0);
    CHECK(sl_group_norm_f32(q, 5, 12, 7, 4, 1e-5, k, NULL, y, 2) == SL_OK);
    CHECK(sl_norm_rows_f32(q, 20, 21, 1e-5, 1, NULL, NULL, again, 1) == SL_OK);
    CHECK_NEAR((double)y[5 * 21 + 8], (double)again[5 * 21 + 8] * (double)k[4], 1e-6);
}

static void
refusals(void)
{
    sl_attention_shape s = {PAIRS, 20, KEYS, WIDTH, DEPTH, 3, KEYS * WIDTH, KEYS * DEPTH, 0.3F, 0};

    CHECK(sl_norm_rows_f32(q, 1, 0, 1e-5, 1, NULL, NULL, y, 1) == SL_ERR_ARG);
    CHECK(sl_norm_rows_f32(q, 1, 4, (double)NAN, 1, NULL, NULL, y, 1) == SL_ERR_ARG);
    CHECK(sl_group_norm_f32(q, 1, 12, 4, 5, 1e-5, NULL, NULL, y, 1) == SL_ERR_ARG);
    CHECK(sl_attention_f32(&s, q, k, v, NULL, y, 0) == SL_ERR_ARG);
    sl_alloc_fail_after(1);
    CHECK(sl_attention_f32(&s, q, k, v, NULL, y, 1) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
    s.bias_pairs = 4;
    CHECK(sl_attention_f32(&s, q, k, v, bias, y, 1) == SL_ERR_ARG);
    s.bias_pairs = 3;
    s.causal = 1;
    s.queries = KEYS + 1;
    CHECK(sl_attention_f32(&s, q, k, v, NULL, y, 1) == SL_ERR_ARG);
    s.queries = PTRDIFF_MAX / 2;
    s.causal = 0;
    CHECK(sl_attention_f32(&s, q, k, v, NULL, y, 1) == SL_ERR_OVERFLOW);
    s.queries = 0;
    CHECK(sl_attention_f32(&s, q, k, v, NULL, y, 1) == SL_OK);
}

int
main(void)
{
    fill(q, MOST, 1);
    fill(k, MOST, 2);
    fill(v, MOST, 3);
    fill(bias, MOST, 4);
    attention(QUERIES, 0, 0);
    attention(QUERIES, 1, 1);
    attention(QUERIES, 0, 1);
    attention(3, 1, 1);
    attention(1, 0, 0);
    norms();
    refusals();
    return CHECK_DONE();
}
