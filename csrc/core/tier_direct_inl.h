/* Matrix products whose left operand is read where it lies: rows of A that are dense along K need no packing, because a tile broadcasts one
 * float of each of its rows in every step.  The sums are those of tier_gemm_inl.h, bit for bit. */

enum {
    PANEL_FIRST = 96, /* up to this many rows stay in the second-level cache while the panels of B pass by */
    RIGHT_AHEAD = 12, /* steps of K that B is asked for ahead of its use */
    SAME_PLACE =
        256, /* rows whose distance is a multiple of this many floats meet in few places of the caches: a tile of them is copied */
    COPY_LD = SL_GEMM_KC + 16
};

/* C (rows, SL_NR) from rows of A at distance lda and one panel of B; rows is a constant where this is inlined. */
SL_INLINE void
direct_tile(const int rows, ptrdiff_t k, const float *a, ptrdiff_t lda, const float *b, float *c, ptrdiff_t ldc,
            const sl_epilogue *e)
{
    vf acc[SL_MR][SL_NV];
    const float *third[SL_MR / 3];

    SL_UNROLL
    for (int i = 0; i < rows; i++) {
        if (i % 3 == 0) {
            third[i / 3] = a + i * lda;
        }
        SL_UNROLL
        for (int j = 0; j < SL_NV; j++) {
            acc[i][j] = v_all(0.0F);
        }
        __builtin_prefetch(c + i * ldc, 1, 3); /* written after k steps: the lines have come by then */
        __builtin_prefetch(c + i * ldc + SL_NR - 1, 1, 3);
    }
    for (ptrdiff_t p = 0; p < k; p++) {
        vf right[SL_NV];
        SL_UNROLL
        for (int j = 0; j < SL_NV; j++) {
            right[j] = v_load(b + j * SL_LANES);
            __builtin_prefetch(b + RIGHT_AHEAD * SL_NR + j * SL_LANES, 0, 3);
        }
        SL_UNROLL
        for (int i = 0; i < rows; i++) {
            const vf left = v_all(third[i / 3][i % 3 * lda]);
            SL_UNROLL
            for (int j = 0; j < SL_NV; j++) {
                acc[i][j] = v_fma(left, right[j], acc[i][j]);
            }
        }
        SL_UNROLL
        for (int i = 0; i < rows; i += 3) {
            third[i / 3]++;
        }
        b += SL_NR;
    }
    tile_store(rows, SL_NV, acc, c, ldc, e, 0);
}

#define SL_DIRECT_CASE(r)                                                                                              \
    case r:                                                                                                            \
        direct_tile(r, k, a, lda, b, c, ldc, e);                                                                       \
        break;

static void
direct_rows(int rows, ptrdiff_t k, const float *a, ptrdiff_t lda, const float *b, float *c, ptrdiff_t ldc,
            const sl_epilogue *e)
{
    switch (rows) {
        SL_DIRECT_CASE(1)
        SL_DIRECT_CASE(2)
        SL_DIRECT_CASE(3)
        SL_DIRECT_CASE(4)
        SL_DIRECT_CASE(5)
#if SL_MR > 6
        SL_DIRECT_CASE(6)
        SL_DIRECT_CASE(7)
        SL_DIRECT_CASE(8)
        SL_DIRECT_CASE(9)
        SL_DIRECT_CASE(10)
        SL_DIRECT_CASE(11)
#endif
    default:
        direct_tile(SL_MR, k, a, lda, b, c, ldc, e);
    }
}

/* Asks for `lines` lines of some rows of A, which are too short for the processor to see them coming. */
SL_INLINE void
direct_ahead(const float *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t lines)
{
    for (ptrdiff_t i = 0; i < rows; i++) {
        for (ptrdiff_t l = 0; l < lines; l++) {
            __builtin_prefetch(a + i * lda + l * 16, 0, 2);
        }
    }
}

/* C (rows, panels * SL_NR) (+)= A B: A (rows, k) at row distance lda, B panels [k][SL_NR] one behind the other, k <= SL_GEMM_KC.  Tiles are of equal height up to
 * one row, so that none is left that is too low to hide the latency of its sums. */
static void
gemm_direct(const float *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t k, const float *b, ptrdiff_t panels, float *c,
            ptrdiff_t ldc, const sl_epilogue *e)
{
    const int few = rows <= PANEL_FIRST;
    const ptrdiff_t tiles = (rows + SL_MR - 1) / SL_MR, outer = few ? panels : tiles, inner = few ? tiles : panels;
    const ptrdiff_t low = tiles > 0 ? rows / tiles : 0, higher = tiles > 0 ? rows % tiles : 0;
    const ptrdiff_t lines = (k + 15) / 16, each = few ? lines : (lines + panels - 1) / (panels > 0 ? panels : 1);

    float copy[SL_MR * COPY_LD];

    for (ptrdiff_t o = 0; o < outer; o++) {
        for (ptrdiff_t n = 0; n < inner; n++) {
            const ptrdiff_t t = few ? n : o, j = few ? o : n;
            const ptrdiff_t row = t * low + (t < higher ? t : higher), height = low + (t < higher);
            sl_epilogue local = *e;
            local.bias_col = e->bias_col != NULL ? e->bias_col + j * SL_NR : NULL;
            local.addend = e->addend != NULL ? e->addend + row * e->ld_addend + j * SL_NR : NULL;
            if (t + 1 < tiles && (few ? o == 0 : j * each < lines)) {
                const ptrdiff_t from = few ? 0 : j * each;
                direct_ahead(a + (row + height) * lda + from * 16, lda, low + (t + 1 < higher),
                             sl_least(each, lines - from));
            }
            if (!few && lda % SAME_PLACE == 0) {
                for (ptrdiff_t i = 0; i < height && j == 0; i++) {
                    memcpy(copy + i * COPY_LD, a + (row + i) * lda, (size_t)k * sizeof *copy);
                }
                direct_rows((int)height, k, copy, COPY_LD, b + j * k * SL_NR, c + row * ldc + j * SL_NR, ldc, &local);
                continue;
            }
            direct_rows((int)height, k, a + row * lda, lda, b + j * k * SL_NR, c + row * ldc + j * SL_NR, ldc, &local);
        }
    }
}
