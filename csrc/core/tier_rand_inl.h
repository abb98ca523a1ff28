/* Inner loops of sl_rand.c, compiled once per tier.  Tiles are SL_RAND_ROWS x SL_RAND_COLS pairs; lanes run over the columns. */
#if SL_LANES > 4
#include <immintrin.h>
#endif
#if SL_LANES == 16
typedef __m512 sl_rand_v;
#define SL_RAND_LOAD(p) _mm512_loadu_ps(p)
#define SL_RAND_STORE(p, v) _mm512_storeu_ps(p, v)
#define SL_RAND_SET(x) _mm512_set1_ps(x)
#define SL_RAND_MIN(a, b) _mm512_min_ps(a, b)
#define SL_RAND_ABS(a) _mm512_abs_ps(a)
#elif SL_LANES == 8
typedef __m256 sl_rand_v;
#define SL_RAND_LOAD(p) _mm256_loadu_ps(p)
#define SL_RAND_STORE(p, v) _mm256_storeu_ps(p, v)
#define SL_RAND_SET(x) _mm256_set1_ps(x)
#define SL_RAND_MIN(a, b) _mm256_min_ps(a, b)
#define SL_RAND_ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#elif defined(__x86_64__)
#include <immintrin.h>
typedef __m128 sl_rand_v;
#define SL_RAND_LOAD(p) _mm_loadu_ps(p)
#define SL_RAND_STORE(p, v) _mm_storeu_ps(p, v)
#define SL_RAND_SET(x) _mm_set1_ps(x)
#define SL_RAND_MIN(a, b) _mm_min_ps(a, b)
#define SL_RAND_ABS(a) _mm_andnot_ps(_mm_set1_ps(-0.0f), a)
#elif defined(__aarch64__)
#include <arm_neon.h>
typedef float32x4_t sl_rand_v;
#define SL_RAND_LOAD(p) vld1q_f32(p)
#define SL_RAND_STORE(p, v) vst1q_f32(p, v)
#define SL_RAND_SET(x) vdupq_n_f32(x)
#define SL_RAND_MIN(a, b) vminq_f32(a, b)
#define SL_RAND_ABS(a) vabsq_f32(a)
#else
#error "sl_rand needs four-lane float vectors; add this architecture here"
#endif

enum { RAND_VECTORS = SL_RAND_COLS / SL_LANES }; /* vectors across a tile */

/* m[i][j] = half_row[i] + half_col[j] - sum_a min(rows[a][i], panel[a][j]) for four rows; a runs over k, in order. */
static void
rand_four_rows(const float *restrict rows, const float *restrict panel, ptrdiff_t k, const float *restrict half_row,
               const float *restrict half_col, float *restrict m)
{
    sl_rand_v sum[4][RAND_VECTORS];

    for (int i = 0; i < 4; i++) {
        for (int v = 0; v < RAND_VECTORS; v++) {
            sum[i][v] = SL_RAND_SET(0.0f);
        }
    }
    for (ptrdiff_t a = 0; a < k; a++) {
        for (int v = 0; v < RAND_VECTORS; v++) {
            const sl_rand_v q = SL_RAND_LOAD(panel + a * SL_RAND_COLS + v * SL_LANES);
            for (int i = 0; i < 4; i++) {
                sum[i][v] += SL_RAND_MIN(SL_RAND_SET(rows[a * 4 + i]), q);
            }
        }
    }
    for (int i = 0; i < 4; i++) {
        for (int v = 0; v < RAND_VECTORS; v++) {
            const sl_rand_v both = SL_RAND_SET(half_row[i]) + SL_RAND_LOAD(half_col + v * SL_LANES);
            SL_RAND_STORE(m + i * SL_RAND_COLS + v * SL_LANES, both - sum[i][v]);
        }
    }
}

static void
rand_tile(const float *restrict rows, const float *restrict panel, ptrdiff_t k, const float *restrict half_row,
          const float *restrict half_col, float *restrict m)
{
    for (ptrdiff_t i = 0; i < SL_RAND_ROWS; i += 4) {
        rand_four_rows(rows + i * k, panel, k, half_row + i, half_col, m + i * SL_RAND_COLS);
    }
}

/* col[j] = sum_i |x[i][j] - y[i][j]|, and row[i][j] += the same terms where row is given. */
static void
rand_difference(const float *restrict x, const float *restrict y, float *restrict col, float *restrict row)
{
    sl_rand_v sum[RAND_VECTORS];

    for (int v = 0; v < RAND_VECTORS; v++) {
        sum[v] = SL_RAND_SET(0.0f);
    }
    for (ptrdiff_t i = 0; i < SL_RAND_ROWS; i++) {
        for (int v = 0; v < RAND_VECTORS; v++) {
            const ptrdiff_t at = i * SL_RAND_COLS + v * SL_LANES;
            const sl_rand_v difference = SL_RAND_LOAD(x + at) - SL_RAND_LOAD(y + at);
            const sl_rand_v term = SL_RAND_ABS(difference);
            sum[v] += term;
            if (row != NULL) {
                SL_RAND_STORE(row + at, SL_RAND_LOAD(row + at) + term);
            }
        }
    }
    for (int v = 0; v < RAND_VECTORS; v++) {
        SL_RAND_STORE(col + v * SL_LANES, sum[v]);
    }
}
