/* Products with few rows on the left: the right operand is read once, row by row, and transposed in registers.  The sums are those of
 * tier_gemm_inl.h, bit for bit. */

enum {
    LINE = 16,  /* floats of a cache line */
    AHEAD = 128 /* floats that are asked for ahead of their use */
};

/* acc[i] += LINE products, in order, of x row i and the SL_LANES rows at w; m is a constant where this is inlined. */
SL_INLINE void
thin_line(const int m, const float *x, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, vf acc[SL_THIN_ROWS])
{
    SL_UNROLL
    for (int r = 0; r < SL_LANES; r++) {
        __builtin_prefetch(w + r * ldw + AHEAD, 0, 2);
    }
    SL_UNROLL
    for (int h = 0; h < LINE; h += 4) {
        vf column[4];
        v_columns(w + h, ldw, column);
        SL_UNROLL
        for (int q = 0; q < 4; q++) {
            SL_UNROLL
            for (int i = 0; i < m; i++) {
                acc[i] = v_fma(v_all(x[i * ldx + h + q]), column[q], acc[i]);
            }
        }
    }
}

/* The n < LINE products that are left. */
SL_INLINE void
thin_rest(const int m, const float *x, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, ptrdiff_t n, vf acc[SL_THIN_ROWS])
{
    for (ptrdiff_t p = 0; p < n; p++) {
        float column[SL_LANES];
        for (int r = 0; r < SL_LANES; r++) {
            column[r] = w[r * ldw + p];
        }
        SL_UNROLL
        for (int i = 0; i < m; i++) {
            acc[i] = v_fma(v_all(x[i * ldx + p]), v_load(column), acc[i]);
        }
    }
}

/* One block of K: acc[g][i] = sums of x row i with the rows g * SL_LANES .. of w.  The groups take turns line by line, which hides the latency of
 * the sums; where all rows of w begin at the same place of a page they come one after the other, because caches and memory banks then take
 * fewer rows at a time (measured: 1.2 to 1.7 times the bandwidth there). */
SL_INLINE void
thin_block(const int m, const float *x, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, ptrdiff_t k,
           vf acc[SL_NV][SL_THIN_ROWS])
{
    const ptrdiff_t whole = k - k % LINE;

    SL_UNROLL
    for (int g = 0; g < SL_NV; g++) {
        SL_UNROLL
        for (int i = 0; i < m; i++) {
            acc[g][i] = v_all(0.0F);
        }
    }
    if (ldw % 1024 == 0) {
        SL_UNROLL
        for (int g = 0; g < SL_NV; g++) {
            for (ptrdiff_t p = 0; p < whole; p += LINE) {
                thin_line(m, x + p, ldx, w + g * SL_LANES * ldw + p, ldw, acc[g]);
            }
        }
    } else {
        for (ptrdiff_t p = 0; p < whole; p += LINE) {
            SL_UNROLL
            for (int g = 0; g < SL_NV; g++) {
                thin_line(m, x + p, ldx, w + g * SL_LANES * ldw + p, ldw, acc[g]);
            }
        }
    }
    SL_UNROLL
    for (int g = 0; g < SL_NV; g++) {
        thin_rest(m, x + whole, ldx, w + g * SL_LANES * ldw + whole, ldw, k - whole, acc[g]);
    }
}

/* y (m, SL_NR) = x w^T + bias + addend; m is a constant where this is inlined. */
SL_INLINE void
thin_sums(const int m, const float *x, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, ptrdiff_t k, ptrdiff_t kblock,
          const float *bias, const float *addend, float *y, ptrdiff_t ldy)
{
    vf total[SL_NV][SL_THIN_ROWS], acc[SL_NV][SL_THIN_ROWS];

    thin_block(m, x, ldx, w, ldw, sl_least(kblock, k), total);
    SL_UNROLL
    for (int g = 0; g < SL_NV; g++) {
        SL_UNROLL
        for (int i = 0; i < m && bias != NULL; i++) {
            total[g][i] = total[g][i] + v_load(bias + g * SL_LANES);
        }
        SL_UNROLL
        for (int i = 0; i < m && addend != NULL; i++) {
            total[g][i] = total[g][i] + v_load(addend + i * ldy + g * SL_LANES);
        }
    }
    for (ptrdiff_t k0 = kblock; k0 < k; k0 += kblock) {
        thin_block(m, x + k0, ldx, w + k0, ldw, sl_least(kblock, k - k0), acc);
        SL_UNROLL
        for (int g = 0; g < SL_NV; g++) {
            SL_UNROLL
            for (int i = 0; i < m; i++) {
                total[g][i] = total[g][i] + acc[g][i];
            }
        }
    }
    SL_UNROLL
    for (int g = 0; g < SL_NV; g++) {
        SL_UNROLL
        for (int i = 0; i < m; i++) {
            v_store(y + i * ldy + g * SL_LANES, total[g][i]);
        }
    }
}

#define SL_THIN_CASE(rows)                                                                                             \
    case rows:                                                                                                         \
        thin_sums(rows, x, ldx, w, ldw, k, kblock, bias, addend, y, ldy);                                              \
        break;

/* y (m, SL_NR) = act(x (m, k) w (SL_NR, k)^T + bias + addend), addend like y or NULL, 1 <= m <= SL_THIN_ROWS, k >= 1 */
static void
gemm_thin(const float *x, ptrdiff_t m, ptrdiff_t ldx, const float *w, ptrdiff_t ldw, ptrdiff_t k, ptrdiff_t kblock,
          const float *bias, const float *addend, sl_activation activation, float *y, ptrdiff_t ldy)
{
    switch (m) {
        SL_THIN_CASE(1)
        SL_THIN_CASE(2)
        SL_THIN_CASE(3)
    default:
        thin_sums(SL_THIN_ROWS, x, ldx, w, ldw, k, kblock, bias, addend, y, ldy);
    }
    for (ptrdiff_t i = 0; i < m; i++) {
        map_activate(y + i * ldy, SL_NR, activation, y + i * ldy);
    }
}
