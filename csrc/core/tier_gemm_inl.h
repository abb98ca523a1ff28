/* Micro-kernels of the matrix product: SL_MR x (SL_NV * SL_LANES) tiles of C held in registers.
 *
 * Every element of C is one chain of v_fma over k in ascending order, whatever the tile it falls into: results do not depend on how rows and
 * columns are cut.  Operands are packed: A in panels [k][SL_MR], B in panels [k][SL_NV * SL_LANES]; see sl_gemm.h. */
#if SL_LANES == 16
#define SL_MR 12
#define SL_NV 2
#elif defined(SL_TIER_IS_NEON)
#define SL_MR 6
#define SL_NV 4
#else
#define SL_MR 6
#define SL_NV 2
#endif
#define SL_NR (SL_NV * SL_LANES)

/* expression for every vector of a tile */
#define SL_EACH(expression)                                                                                            \
    SL_UNROLL                                                                                                          \
    for (int i = 0; i < rows; i++) {                                                                                   \
        SL_UNROLL                                                                                                      \
        for (int j = 0; j < vecs; j++) {                                                                               \
            expression;                                                                                                \
        }                                                                                                              \
    }

/* Finishes a tile of sums, whose first row is the row-th of the epilogue; rows and vecs are constants where this is inlined.  What is asked about the
 * epilogue is asked once per tile: it counts where K is short. */
SL_INLINE void
tile_store(const int rows, const int vecs, vf acc[SL_MR][SL_NV], float *c, ptrdiff_t ldc, const sl_epilogue *e,
           ptrdiff_t row)
{
    if (!e->first) {
        SL_EACH(acc[i][j] = v_load(c + i * ldc + j * SL_LANES) + acc[i][j])
    } else {
        if (e->bias_row != NULL) {
            SL_EACH(acc[i][j] = acc[i][j] + v_all(e->bias_row[row + i]))
        }
        if (e->bias_col != NULL) {
            SL_EACH(acc[i][j] = acc[i][j] + v_load(e->bias_col + j * SL_LANES))
        }
        if (e->addend != NULL) {
            const float *addend = e->addend + row * e->ld_addend;
            SL_EACH(acc[i][j] = acc[i][j] + v_load(addend + i * e->ld_addend + j * SL_LANES))
        }
    }
    if (e->last && (e->activation == SL_ACT_RELU || e->activation == SL_ACT_RELU6)) {
        SL_EACH(acc[i][j] = v_at_least(acc[i][j], v_all(0.0F)))
        if (e->activation == SL_ACT_RELU6) {
            SL_EACH(acc[i][j] = v_at_most(acc[i][j], v_all(6.0F)))
        }
    }
    if (e->last && e->activation > SL_ACT_RELU6) { /* those that call for more registers: the whole tile at a time */
        float sums[SL_MR * SL_NR];
        SL_EACH(v_store(sums + (i * vecs + j) * SL_LANES, acc[i][j]))
        map_activate(sums, rows * vecs * SL_LANES, e->activation, sums);
        SL_EACH(v_store(c + i * ldc + j * SL_LANES, v_load(sums + (i * vecs + j) * SL_LANES)))
        return;
    }
    SL_EACH(v_store(c + i * ldc + j * SL_LANES, acc[i][j]))
}

/* C (rows, vecs * SL_LANES) from one panel of A and one of B; rows and vecs are constants where this is inlined. */
SL_INLINE void
tile(const int rows, const int vecs, ptrdiff_t k, const float *a, const float *b, ptrdiff_t ldb, float *c,
     ptrdiff_t ldc, const sl_epilogue *e, ptrdiff_t row)
{
    vf acc[SL_MR][SL_NV];

    SL_UNROLL
    for (int i = 0; i < rows; i++) {
        SL_UNROLL
        for (int j = 0; j < vecs; j++) {
            acc[i][j] = v_all(0.0F);
        }
    }
    for (ptrdiff_t p = 0; p < k; p++) {
        vf right[SL_NV];
        SL_UNROLL
        for (int j = 0; j < vecs; j++) {
            right[j] = v_load(b + j * SL_LANES);
        }
        SL_UNROLL
        for (int i = 0; i < rows; i++) {
            const vf left = v_all(a[i]);
            SL_UNROLL
            for (int j = 0; j < vecs; j++) {
                acc[i][j] = v_fma(left, right[j], acc[i][j]);
            }
        }
        a += SL_MR;
        b += ldb;
    }
    tile_store(rows, vecs, acc, c, ldc, e, row);
}

#define SL_TILE_CASE(r)                                                                                                \
    case r:                                                                                                            \
        tile(r, vecs, k, a, b, ldb, c, ldc, e, row);                                                                   \
        break;

SL_INLINE void
tile_rows(int rows, const int vecs, ptrdiff_t k, const float *a, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
          const sl_epilogue *e, ptrdiff_t row)
{
    switch (rows) {
        SL_TILE_CASE(1)
        SL_TILE_CASE(2)
        SL_TILE_CASE(3)
        SL_TILE_CASE(4)
        SL_TILE_CASE(5)
#if SL_MR > 6
        SL_TILE_CASE(6)
        SL_TILE_CASE(7)
        SL_TILE_CASE(8)
        SL_TILE_CASE(9)
        SL_TILE_CASE(10)
        SL_TILE_CASE(11)
#endif
    default:
        tile(SL_MR, vecs, k, a, b, ldb, c, ldc, e, row);
    }
}

static void
panel_full(const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
           const sl_epilogue *e)
{
    for (ptrdiff_t i = 0; i < rows; i += SL_MR) {
        const ptrdiff_t left = rows - i;
        tile_rows(left < SL_MR ? (int)left : SL_MR, SL_NV, k, a + i * k, b, ldb, c + i * ldc, ldc, e, i);
    }
}

static void
panel_narrow(const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,
             const sl_epilogue *e)
{
    for (ptrdiff_t i = 0; i < rows; i += SL_MR) {
        const ptrdiff_t left = rows - i;
        tile_rows(left < SL_MR ? (int)left : SL_MR, 1, k, a + i * k, b, ldb, c + i * ldc, ldc, e, i);
    }
}

/* C (rows, cols) from the panels of A and one panel of B: cols is SL_NR or SL_LANES. */
static void
gemm_panel(const float *a, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t ldb, ptrdiff_t cols, float *c,
           ptrdiff_t ldc, const sl_epilogue *e)
{
    if (cols > SL_LANES) {
        panel_full(a, rows, k, b, ldb, c, ldc, e);
    } else {
        panel_narrow(a, rows, k, b, ldb, c, ldc, e);
    }
}

/* dst [k][width] = transpose of rows x k of src; missing rows (up to width) become 0.  width is a constant where this is inlined.
 * Whole vectors are stored in ascending order: what one writes beyond its row is written over by the next, and the last rows go float by float. */
SL_INLINE void
pack_rows(const int width, const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst)
{
    ptrdiff_t p = 0;

    for (; rows >= width - width % SL_LANES && rows >= SL_LANES && p + 4 + (width % SL_LANES != 0 ? 4 : 0) <= k;
         p += 4) {
        SL_UNROLL
        for (int block = 0; block + SL_LANES <= width; block += SL_LANES) {
            vf column[4];
            v_columns(src + block * ld + p, ld, column);
            SL_UNROLL
            for (int q = 0; q < 4; q++) {
                v_store(dst + (p + q) * width + block, column[q]);
            }
        }
        SL_UNROLL
        for (int q = 0; q < 4; q++) {
            SL_UNROLL
            for (int i = width - width % SL_LANES; i < width; i++) {
                dst[(p + q) * width + i] = i < rows ? src[i * ld + p + q] : 0.0F;
            }
        }
    }
    for (; p < k; p++) {
        for (ptrdiff_t i = 0; i < width; i++) {
            dst[p * width + i] = i < rows ? src[i * ld + p] : 0.0F;
        }
    }
}

static void
pack_a(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst)
{
    pack_rows(SL_MR, src, ld, rows, k, dst);
}

static void
pack_b(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst)
{
    pack_rows(SL_NR, src, ld, rows, k, dst);
}

/* rounds x SL_PEAK_CHAINS independent multiply-adds on registers only: what the machine could do at best. */
#define SL_PEAK_CHAINS 12
static float
peak_loop(ptrdiff_t rounds)
{
    vf x[SL_PEAK_CHAINS], sum = v_all(0.0F);
    const vf factor = v_all(0.5F), term = v_all(1.0F);
    float total = 0.0F;

    SL_UNROLL
    for (int i = 0; i < SL_PEAK_CHAINS; i++) {
        x[i] = v_all((float)i);
    }
    for (ptrdiff_t r = 0; r < rounds; r++) {
        SL_UNROLL
        for (int i = 0; i < SL_PEAK_CHAINS; i++) {
            x[i] = v_fma(x[i], factor, term);
        }
    }
    SL_UNROLL
    for (int i = 0; i < SL_PEAK_CHAINS; i++) {
        sum = sum + x[i];
    }
    for (int l = 0; l < SL_LANES; l++) {
        total += sum[l];
    }
    return total;
}
