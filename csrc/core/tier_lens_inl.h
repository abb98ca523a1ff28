/* Inner loops of the lens kernels; see sl_lens_private.h.  Doubles, SL_LANES / 2 per register.  Sums have the same order in every tier, and
 * products of widened floats are exact, so that fusing them with the addition changes nothing: all tiers give the same bits. */
#include "sl_lens_private.h"

#define SL_HALF (SL_LANES / 2)
#define SL_QUADS (16 / SL_HALF) /* registers for 16 doubles */

typedef double vd __attribute__((vector_size(4 * SL_LANES)));
typedef double vd_any __attribute__((vector_size(4 * SL_LANES), aligned(8), may_alias));
typedef float vh __attribute__((vector_size(2 * SL_LANES)));
typedef float vh_any __attribute__((vector_size(2 * SL_LANES), aligned(4), may_alias));

SL_INLINE vd
vd_widen(const float *p)
{
    const vh x = *(const vh_any *)p;

    return __builtin_convertvector(x, vd);
}

SL_INLINE vd
vd_load(const double *p)
{
    return *(const vd_any *)p;
}

SL_INLINE void
vd_store(double *p, vd v)
{
    *(vd_any *)p = v;
}

SL_INLINE vd
vd_all(double s)
{
    return s - (vd){0.0};
}

/* a * b + c where a * b is exact */
#if SL_LANES == 16
SL_INLINE vd
vd_fma(vd a, vd b, vd c)
{
    return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif SL_LANES == 8
SL_INLINE vd
vd_fma(vd a, vd b, vd c)
{
    return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
SL_INLINE vd
vd_fma(vd a, vd b, vd c)
{
    return a * b + c;
}
#endif

static double
lens_square(const float *x, ptrdiff_t d)
{
    vd acc[SL_QUADS];
    double lane[16], total = 0.0;
    ptrdiff_t j = 0;

    SL_UNROLL
    for (int q = 0; q < SL_QUADS; q++) {
        acc[q] = vd_all(0.0);
    }
    for (; j + 16 <= d; j += 16) {
        SL_UNROLL
        for (int q = 0; q < SL_QUADS; q++) {
            const vd t = vd_widen(x + j + q * SL_HALF);
            acc[q] = vd_fma(t, t, acc[q]);
        }
    }
    SL_UNROLL
    for (int q = 0; q < SL_QUADS; q++) {
        vd_store(lane + q * SL_HALF, acc[q]);
    }
    for (int l = 0; j < d; j++, l++) {
        lane[l] += (double)x[j] * (double)x[j];
    }
    for (int l = 0; l < 16; l++) {
        total += lane[l];
    }
    return total;
}

static void
lens_weighted_sum(const float *const *rows, const double *scale, ptrdiff_t n, ptrdiff_t d, double *sum)
{
    ptrdiff_t j = 0;

    for (; j + 16 <= d; j += 16) { /* one cache line of every row at a time: the sum stays in registers */
        vd acc[SL_QUADS];
        SL_UNROLL
        for (int q = 0; q < SL_QUADS; q++) {
            acc[q] = vd_all(0.0);
        }
        for (ptrdiff_t i = 0; i < n; i++) {
            const vd s = vd_all(scale[i]);
            SL_UNROLL
            for (int q = 0; q < SL_QUADS; q++) {
                acc[q] = acc[q] + s * vd_widen(rows[i] + j + q * SL_HALF);
            }
        }
        SL_UNROLL
        for (int q = 0; q < SL_QUADS; q++) {
            vd_store(sum + j + q * SL_HALF, acc[q]);
        }
    }
    for (; j < d; j++) {
        double total = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) {
            total += scale[i] * (double)rows[i][j];
        }
        sum[j] = total;
    }
}

/* pack[p, i] = rows[i][p0 + p], p < depth, i < ld; 0 from n on. */
static void
lens_pack(const float *const *rows, ptrdiff_t n, ptrdiff_t p0, ptrdiff_t depth, ptrdiff_t ld, double *pack)
{
    ptrdiff_t i = 0;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        ptrdiff_t p = 0;
        for (; p + 4 <= depth; p += 4) {
            float block[4 * SL_LANES];
            vf column[4];
            for (int l = 0; l < SL_LANES; l++) {
                memcpy(block + 4 * l, rows[i + l] + p0 + p, 4 * sizeof *block);
            }
            v_columns(block, 4, column);
            SL_UNROLL
            for (int q = 0; q < 4; q++) {
                float values[SL_LANES];
                v_store(values, column[q]);
                vd_store(pack + (p + q) * ld + i, vd_widen(values));
                vd_store(pack + (p + q) * ld + i + SL_HALF, vd_widen(values + SL_HALF));
            }
        }
        for (; p < depth; p++) {
            for (int l = 0; l < SL_LANES; l++) {
                pack[p * ld + i + l] = (double)rows[i + l][p0 + p];
            }
        }
    }
    for (; i < ld; i++) {
        for (ptrdiff_t p = 0; p < depth; p++) {
            pack[p * ld + i] = i < n ? (double)rows[i][p0 + p] : 0.0;
        }
    }
}

#if SL_LANES == 4
#define SL_GRAM_ROWS 2
#else
#define SL_GRAM_ROWS (SL_LANES / 2)
#endif
#define SL_GRAM_VECS (SL_GRAM_STEP / SL_HALF)

/* g (SL_GRAM_ROWS, SL_GRAM_STEP) += product of two column strips of pack. */
SL_INLINE void
lens_gram_tile(const double *left, const double *right, ptrdiff_t depth, ptrdiff_t ld, double *g)
{
    vd acc[SL_GRAM_ROWS][SL_GRAM_VECS];

    SL_UNROLL
    for (int i = 0; i < SL_GRAM_ROWS; i++) {
        SL_UNROLL
        for (int j = 0; j < SL_GRAM_VECS; j++) {
            acc[i][j] = vd_load(g + i * ld + j * SL_HALF);
        }
    }
    for (ptrdiff_t p = 0; p < depth; p++) {
        SL_UNROLL
        for (int i = 0; i < SL_GRAM_ROWS; i++) {
            const vd a = vd_all(left[p * ld + i]);
            SL_UNROLL
            for (int j = 0; j < SL_GRAM_VECS; j++) {
                acc[i][j] = vd_fma(a, vd_load(right + p * ld + j * SL_HALF), acc[i][j]);
            }
        }
    }
    SL_UNROLL
    for (int i = 0; i < SL_GRAM_ROWS; i++) {
        SL_UNROLL
        for (int j = 0; j < SL_GRAM_VECS; j++) {
            vd_store(g + i * ld + j * SL_HALF, acc[i][j]);
        }
    }
}

static void
lens_gram(const float *const *rows, ptrdiff_t n, ptrdiff_t d, double *g, ptrdiff_t ld, double *pack)
{
    for (ptrdiff_t i = 0; i < ld * ld; i++) {
        g[i] = 0.0;
    }
    for (ptrdiff_t p = 0; p < d; p += SL_GRAM_DEPTH) {
        const ptrdiff_t depth = d - p < SL_GRAM_DEPTH ? d - p : SL_GRAM_DEPTH;
        lens_pack(rows, n, p, depth, ld, pack);
        for (ptrdiff_t i = 0; i < n; i += SL_GRAM_ROWS) {
            for (ptrdiff_t j = i - i % SL_GRAM_STEP; j < n; j += SL_GRAM_STEP) {
                lens_gram_tile(pack + i, pack + j, depth, ld, g + i * ld + j);
            }
        }
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        for (ptrdiff_t j = 0; j < i; j++) {
            g[i * ld + j] = g[j * ld + i];
        }
    }
}

static void
lens_group_sums(const double *g, ptrdiff_t n, ptrdiff_t ld, const int32_t *labels, ptrdiff_t h, double *restrict sums)
{
    for (ptrdiff_t i = 0; i < h * ld; i++) {
        sums[i] = 0.0;
    }
    for (ptrdiff_t j = 0; j < n; j++) {
        double *restrict s = sums + labels[j] * ld;
        const double *row = g + j * ld;
        for (ptrdiff_t i = 0; i < ld; i += SL_HALF) {
            vd_store(s + i, vd_load(s + i) + vd_load(row + i));
        }
    }
}

/* Columns from i on, `width` of them, a multiple of the register: the sums stay in registers. */
SL_INLINE void
lens_add_strip(const double *g, const int32_t *rows, const double *weight, ptrdiff_t n, ptrdiff_t ld, double *sum,
               const int vectors)
{
    vd acc[16];

    SL_UNROLL
    for (int q = 0; q < vectors; q++) {
        acc[q] = vd_all(0.0);
    }
    for (ptrdiff_t j = 0; j < n; j++) {
        const vd s = vd_all(weight[j]);
        const double *row = g + rows[j] * ld;
        SL_UNROLL
        for (int q = 0; q < vectors; q++) {
            acc[q] = acc[q] + s * vd_load(row + q * SL_HALF);
        }
    }
    SL_UNROLL
    for (int q = 0; q < vectors; q++) {
        vd_store(sum + q * SL_HALF, acc[q]);
    }
}

static void
lens_add_rows(const double *g, const int32_t *rows, const double *weight, ptrdiff_t n, ptrdiff_t ld, double *sum)
{
    ptrdiff_t i = 0;

#if SL_LANES >= 8
    for (; i + 32 <= ld; i += 32) {
        lens_add_strip(g + i, rows, weight, n, ld, sum + i, 32 / SL_HALF);
    }
#endif
    for (; i + 16 <= ld; i += 16) {
        lens_add_strip(g + i, rows, weight, n, ld, sum + i, 16 / SL_HALF);
    }
    for (; i < ld; i += SL_GRAM_STEP) {
        lens_add_strip(g + i, rows, weight, n, ld, sum + i, SL_GRAM_STEP / SL_HALF);
    }
}

static uint32_t
lens_best_split(const double *c, ptrdiff_t n, ptrdiff_t ld, double scatter, double *restrict sums)
{
    double within = 0.0, best = -1.0, factor[SL_EXACT_MAX + 1];
    uint32_t gray = 0, found = 0;
    ptrdiff_t size = 0;

    factor[0] = factor[n] = 0.0;
    for (ptrdiff_t a = 1; a < n; a++) {
        factor[a] = (double)n / ((double)a * (double)(n - a));
    }
    for (ptrdiff_t i = 0; i < ld; i++) {
        sums[i] = 0.0;
    }
    for (uint32_t step = 1; step < UINT32_C(1) << (n - 1); step++) {
        const int p = __builtin_ctz(step);
        const double *row = c + p * ld;
        const int enters = (gray >> p & 1U) == 0;
        const vd sign = vd_all(enters ? 1.0 : -1.0);
        gray ^= UINT32_C(1) << p;
        size += enters ? 1 : -1;
        within += (enters ? 2.0 : -2.0) * sums[p] + row[p];
        for (ptrdiff_t i = 0; i < ld; i += SL_HALF) {
            vd_store(sums + i, vd_load(sums + i) + sign * vd_load(row + i));
        }
        if (within * factor[size] > best + 1e-12 * scatter) {
            best = within * factor[size];
            found = gray;
        }
    }
    return found;
}

static int
lens_scan(const float *t, const float *best, ptrdiff_t n, float *most)
{
    vf top = v_all(*most);
    vi hits = {0};
    ptrdiff_t j = 0;
    int any = 0;

    for (; j + SL_LANES <= n; j += SL_LANES) {
        const vf x = v_load(t + j);
        top = v_at_least(x, top);
        hits |= (vi)(x >= v_load(best + j));
    }
    for (int l = 0; l < SL_LANES; l++) {
        *most = top[l] > *most ? top[l] : *most;
        any |= hits[l];
    }
    for (; j < n; j++) {
        *most = t[j] > *most ? t[j] : *most;
        any |= t[j] >= best[j];
    }
    return any != 0;
}

static const struct sl_lens_loops lens_loops = {
    .square = lens_square,
    .weighted_sum = lens_weighted_sum,
    .gram = lens_gram,
    .group_sums = lens_group_sums,
    .add_rows = lens_add_rows,
    .best_split = lens_best_split,
    .scan = lens_scan,
};
