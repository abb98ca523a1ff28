/* The inner loops that are compiled once per instruction set.  tier_<name>.c defines SL_TIER_* and includes tier_body_inl.h, which fills one
 * sl_tier; the rest of the core reaches them through sl_tier_get().  Private to csrc/core. */
#ifndef SL_TIER_H
#define SL_TIER_H

#include "sl/sl_common.h"
#include "sl/sl_contract.h"
#include "sl/sl_elementwise.h"

/* What happens to a tile of C after its product with one block of K: the first block stores product + bias + addend, later ones add to C, the
 * last applies the activation. */
typedef struct {
    const float *bias_row; /* one per row of C, or NULL */
    const float *bias_col; /* one per column of the panel, or NULL; readable for the panel's full width */
    const float *addend;   /* laid out like C with row distance ld_addend, or NULL; may be C itself */
    ptrdiff_t ld_addend;
    int first, last;
    sl_activation activation;
} sl_epilogue;

struct sl_lens_loops; /* sl_lens_private.h */
enum {
    SL_THIN_ROWS = 4 /* rows of x that gemm_thin takes */
};
enum {
    SL_RAND_ROWS = 64,
    SL_RAND_COLS = 48,
    SL_RAND_FEED = 16
}; /* pairs of a tile of sl_rand.c; columns that feed the distributions together */
enum { SL_SPACE_BLOCK = 16 }; /* points of a leaf of sl_knn.c */

/* Neighbouring columns of a panel of B that are neighbours in memory too. */
typedef struct {
    const float *source;
    ptrdiff_t column, length;
} sl_run;

/* One plane of a depthwise convolution, its rows padded and split by stride phase in a buffer. */
typedef struct {
    ptrdiff_t kernel_h, kernel_w;
    ptrdiff_t width;             /* of the output */
    ptrdiff_t line;              /* floats from one buffer row to the next */
    ptrdiff_t row_step;          /* floats from the first tap of an output row to that of the next */
    ptrdiff_t tap_row;           /* floats from one kernel row to the next */
    const ptrdiff_t *tap_column; /* (kernel_w) floats from the first tap of a kernel row */
    const float *weights;        /* (kernel_h, kernel_w) */
    float bias;
    int unit;                                     /* stride and dilation are 1 */
    int relu;                                     /* 0: none, 1: max(., 0), 2: min(max(., 0), 6) */
    enum { SL_STORE_WHOLE, SL_STORE_EXACT } mode; /* whole vectors may be stored beyond the end of a row, or not */
} sl_depthwise;

typedef struct {
    const char *name;
    int lanes;  /* float32 lanes of a vector register */
    int mr, nr; /* rows of a packed panel of A, columns of a packed panel of B */

    /* C (rows, cols) (+)= A B for one panel of B: a = panels [k][mr] of ceil(rows / mr), b = k rows at distance ldb, cols = nr or lanes. */
    void (*gemm_panel)(const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb, ptrdiff_t cols,
                       float *c, ptrdiff_t ldc, const sl_epilogue *e);
    /* The same for rows of A where they lie, at distance lda, and `panels` panels of B one behind the other, all nr columns wide; bias_col and addend of
     * the epilogue go on from panel to panel, bias_row is not used. */
    void (*gemm_direct)(const float *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t panels,
                        float *c, ptrdiff_t ldc, const sl_epilogue *e);
    /* dst [k][mr] (or [k][nr]) = transpose of src (rows <= mr, k), row distance ld; missing rows become 0. */
    void (*pack_a)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst);
    void (*pack_b)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst);

    /* See sl_rand.c: pair distances of a tile, and the sums of their absolute differences. */
    void (*rand_tile)(const float *restrict rows, const float *restrict panel, ptrdiff_t k,
                      const float *restrict half_row, const float *restrict half_col, float *restrict m);
    void (*rand_places)(const float *m, int32_t *place);
    void (*rand_difference)(const float *restrict x, const float *restrict y, float *restrict col, float *restrict row);
    void (*rand_parts)(const float *restrict rows, const float *restrict panel, ptrdiff_t k, const float *restrict sign,
                       double *restrict out);
    double (*rand_distance)(const float *restrict x, const float *restrict y, ptrdiff_t k);
    /* Squared distances of one point to a block, of a block to a box; see tier_space_inl.h. */
    unsigned (*space_within)(const double *restrict squared, const double *restrict bound);
    unsigned (*space_points)(const double *restrict block, const double *restrict q, ptrdiff_t d, double bound,
                             double *restrict out);
    unsigned (*space_box)(const double *restrict block, const double *restrict box, ptrdiff_t d,
                          const double *restrict floor, const double *restrict bound, double *restrict out);

    void (*cells_find)(const float *restrict p, const float *restrict q, float sign, int fine, ptrdiff_t n,
                       float *restrict v, int32_t *restrict cell);
    ptrdiff_t (*cells_both)(const uint64_t *set_p, const int32_t *before_p, const float *held_p, const uint64_t *set_q,
                            const int32_t *before_q, const float *held_q, ptrdiff_t words, float *restrict p,
                            float *restrict q);

    /* See tier_member_inl.h. */
    void (*member_nearest)(const float *restrict block, const float *restrict negated, const float *restrict half,
                           ptrdiff_t m, ptrdiff_t d, float rate, float base, const float *restrict reach,
                           const double *restrict x, const double *restrict exemplars, ptrdiff_t ld,
                           double *restrict best);
    void (*member_nearness)(double *restrict u, ptrdiff_t K, double at_exemplar);
    double (*member_weigh)(double *restrict u, const double *restrict height, const double *restrict e, ptrdiff_t K,
                           int fresh, double own, double others, double lam, double most, double *highest);

    /* See tier_gram_inl.h. */
    void (*gram_bins)(const float *product, const float *square, float own, float low, float scale, int32_t last,
                      ptrdiff_t n, int32_t *bins);
    void (*gram_gauss)(float *product, const float *square, float own, float rate, ptrdiff_t n);
    void (*gram_sums)(const float *k, const float *l, ptrdiff_t n, double *col_k, double *col_l, double *sums);
    ptrdiff_t (*gram_hits)(const float *product, float limit, const float *limits, ptrdiff_t n, int32_t *hits);
    double (*gram_dot)(const double *a, const double *b, ptrdiff_t d);
    ptrdiff_t cross_rows, cross_columns;
    void (*cross_tile)(const double *left, const double *right, ptrdiff_t depth, double *c, ptrdiff_t ldc);

    const struct sl_lens_loops *lens; /* scores, cosines, labels */

    /* Streaming selection; see tier_topm_inl.h. */
    ptrdiff_t (*topm_scan)(const float *restrict values, const float *restrict limits, ptrdiff_t n,
                           int32_t *restrict hits);
    void (*topm_ranks)(float *restrict scores, ptrdiff_t n, int32_t *restrict ranks);
    void (*topm_range)(const float *restrict x, ptrdiff_t n, float *least, float *largest);
    int (*topm_pivot)(const float *restrict list, ptrdiff_t m, const float *restrict fresh, ptrdiff_t n, float below,
                      float *pivot);

    /* y (m, nr) = act(x (m, k) w (nr, k)^T + bias (nr) or NULL + addend (m, nr; like y) or NULL), 1 <= m <= SL_THIN_ROWS, k >= 1, cut at multiples of kblock: the same bits as gemm_panel. */
    void (*gemm_thin)(const float *x, ptrdiff_t m, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, ptrdiff_t k,
                      ptrdiff_t kblock, const float *bias, const float *addend, sl_activation activation, float *y,
                      ptrdiff_t ldy);
    /* dst [k][nr]: row p, columns of run r = runs[r].source + offsets[p]; reads and writes up to lanes - 1 floats behind. */
    void (*pack_runs)(const sl_run *runs, ptrdiff_t n_runs, const ptrdiff_t *offsets, ptrdiff_t k, float *dst);
    /* dst (phases, positions): dst[f, i] = row[start + f + i * step], 0 outside 0 .. width - 1.  With more than one phase, positions is a multiple of
     * lanes; with one, up to lanes - 1 floats behind dst are written.  line: (positions + lanes) * step floats of scratch, unused for step 1. */
    void (*pad_row)(const float *row, ptrdiff_t width, ptrdiff_t start, ptrdiff_t step, ptrdiff_t phases,
                    ptrdiff_t positions, float *line, float *dst);

    /* y[i] = f(x[i], z[i]) for i < n; y may be x or z. */
    void (*map_activate)(const float *x, ptrdiff_t n, sl_activation kind, float *y);
    void (*map_add)(const float *x, const float *z, ptrdiff_t n, sl_activation kind, float *y);
    void (*map_multiply)(const float *x, const float *z, ptrdiff_t n, float *y);
    void (*map_scale)(const float *x, ptrdiff_t n, float factor, float *y);
    void (*map_scale_shift)(const float *x, ptrdiff_t n, float factor, float term, sl_activation kind, float *y);
    /* Of n >= 1 values, or of their magnitudes; NaN if any is NaN.  The sum runs in double over 16 fixed lanes. */
    float (*reduce_max)(const float *x, ptrdiff_t n, int magnitude);
    double (*reduce_sum)(const float *x, ptrdiff_t n, int magnitude);
    void (*softmax_row)(const float *x, ptrdiff_t n, float *y);

    /* m[i] = max(m[i], x[i * step]), NaN wins;  sum[i] += x[i]. */
    void (*row_max)(const float *x, ptrdiff_t n, float *m);
    void (*row_max_strided)(const float *x, ptrdiff_t step, ptrdiff_t n, float *m);
    void (*row_sum)(const float *x, ptrdiff_t n, double *sum);
    /* `rows` output rows from the buffer rows that begin at `lines`; addend (only with SL_STORE_EXACT) like y, or NULL. */
    void (*depthwise)(const sl_depthwise *d, const float *lines, ptrdiff_t rows, const float *addend, float *y);

    /* See sl_contract.h: y[i] = the variant of x[i], y may be x; the steps of a finish, its arrays `offset` floats in; packing of rows that already lie
     * side by side: dst [k][mr] (or [k][nr]) = src (k, rows <= mr), missing columns 0. */
    void (*map_variant)(const float *x, ptrdiff_t n, sl_variant variant, float *y);
    /* y[i] = the derivative of an activation at the saved x[i], times z[i]; y may be z. */
    void (*map_slope)(const float *x, const float *z, ptrdiff_t n, sl_activation kind, float *y);

    /* sl_relevance.h: y = x / st(z);  y = factor part(z) x + sum, sum may be NULL;  x split by the sign of z */
    void (*map_quotient)(const float *x, const float *z, ptrdiff_t n, float stabiliser, int clip, float *y);
    void (*map_times)(const float *x, const float *z, const float *sum, ptrdiff_t n, sl_seen part, float factor,
                      float *y);
    int (*map_by_sign)(const float *x, const float *z, ptrdiff_t n, float *above, float *below);
    void (*map_finish)(const sl_finish *f, ptrdiff_t offset, ptrdiff_t n, float *y);
    void (*copy_a)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst);
    void (*copy_b)(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst);
    /* Taps of the kernels of one output, for each panel of mr channels: dst [n_taps][mr], panels `panel` floats apart; `kernel` floats a channel. */
    void (*pack_taps)(const float *src, ptrdiff_t kernel, const ptrdiff_t *taps, ptrdiff_t n_taps, ptrdiff_t channels,
                      float *dst, ptrdiff_t panel);
    /* acc (m, n) += a (m, k) b (k, n), one chain of multiply-adds in ascending order of k. */
    void (*axpy_rows)(const float *a, ptrdiff_t lda, ptrdiff_t m, const float *b, ptrdiff_t ldb, ptrdiff_t k,
                      ptrdiff_t n, float *acc, ptrdiff_t ldacc);
    /* y[2 i] = even[i], y[2 i + 1] = odd[i], n floats in all. */
    void (*zip_rows)(const float *even, const float *odd, ptrdiff_t n, float *y);
    /* sum of x[i] z[i * step] in double over 8 fixed lanes: the same bits in every tier. */
    double (*dot_double)(const float *x, const float *z, ptrdiff_t step, ptrdiff_t n);
    /* See tier_winograd_inl.h. */
    void (*tile_input)(const float *patch, ptrdiff_t pitch, ptrdiff_t odd, ptrdiff_t n, float *dst, ptrdiff_t ld);
    void (*tile_output)(const float *m, ptrdiff_t ld, ptrdiff_t n, float bias, float *top, float *bottom);
    void (*tile_weights)(const float *w, ptrdiff_t k, float *dst, ptrdiff_t ld);
    /* See tier_transformer_inl.h. */
    void (*norm_row)(const float *x, ptrdiff_t n, double eps, int centred, const float *weight, const float *bias,
                     float *y);
    void (*attention_row)(const float *q, const float *keys, const float *values, ptrdiff_t width, ptrdiff_t depth,
                          ptrdiff_t n, float scale, const float *bias, float *scores, float *y);

    /* rounds * peak_chains * lanes independent multiply-adds without touching memory; returns their sum so that they are not left out. */
    int peak_chains;
    float (*peak_loop)(ptrdiff_t rounds);
} sl_tier;

extern const sl_tier sl_tier_baseline;
#if defined(__x86_64__)
extern const sl_tier sl_tier_avx2;
extern const sl_tier sl_tier_avx512;
#endif
#if defined(__aarch64__)
extern const sl_tier sl_tier_neon;
#endif

const sl_tier *sl_tier_get(void);

#endif
