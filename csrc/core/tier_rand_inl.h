/* Inner loops of sl_rand.c, compiled once per tier.  Tiles are SL_RAND_ROWS x SL_RAND_COLS pairs; lanes run over the columns. */

/* Smaller of two numbers, neither of them NaN: one instruction where the tier has one. */
SL_INLINE vf
rand_min(vf a, vf b)
{
#if SL_LANES == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif SL_LANES == 8
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#elif defined(__aarch64__)
    return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
    return v_select(a < b, a, b);
#endif
}

SL_INLINE vf
rand_abs(vf a)
{
    return (vf)((vi)a & INT32_MAX); /* the sign bit off */
}

/* a + sum.  With one rounding it is a multiply-add by 1, which has the same bits and, on processors whose minimum and addition share their units, others. */
SL_INLINE vf
rand_add(vf a, vf one, vf sum)
{
#if SL_FMA
    return v_fma(a, one, sum);
#else
    (void)one;
    return sum + a;
#endif
}

/* 1 in every lane, unknown to the compiler, which would make a plain addition of the multiply-add. */
SL_INLINE vf
rand_one(void)
{
    static const volatile float one = 1.0F;

    return v_all(one);
}

enum {
    RAND_WIDE = 3, /* vectors across a part of a tile: with four rows, as many sums as hide an addition's latency */
    RAND_PART = RAND_WIDE * SL_LANES, /* columns of a part */
    RAND_DEPTH = 128,                 /* entries of a panel that stay in the first-level cache while all rows pass by */
    RAND_VECTORS = SL_RAND_FEED / SL_LANES
};

/* m[i][j] -= sum_a min(rows[a][i], panel[a][j]) for four rows and one part of the columns, a over k in order; begins with half_row[i] + half_col[j] - the
 * whole sum, which m holds in between with the sign of a sum. */
static void
rand_four_rows(const float *restrict rows, const float *restrict panel, ptrdiff_t k, int first, int last,
               const float *restrict half_row, const float *restrict half_col, float *restrict m)
{
    const vf one = rand_one();
    vf sum[4][RAND_WIDE];

    SL_UNROLL
    for (int i = 0; i < 4; i++) {
        SL_UNROLL
        for (int v = 0; v < RAND_WIDE; v++) {
            sum[i][v] = first ? v_all(0.0f) : v_load(m + i * SL_RAND_COLS + v * SL_LANES);
        }
    }
    for (ptrdiff_t a = 0; a < k; a++) {
        vf q[RAND_WIDE];
        SL_UNROLL
        for (int v = 0; v < RAND_WIDE; v++) {
            q[v] = v_load(panel + a * SL_RAND_COLS + v * SL_LANES);
        }
        SL_UNROLL
        for (int i = 0; i < 4; i++) {
            const vf p = v_all(rows[a * 4 + i]);
            SL_UNROLL
            for (int v = 0; v < RAND_WIDE; v++) {
                sum[i][v] = rand_add(rand_min(p, q[v]), one, sum[i][v]);
            }
        }
    }
    SL_UNROLL
    for (int i = 0; i < 4; i++) {
        SL_UNROLL
        for (int v = 0; v < RAND_WIDE; v++) {
            const vf both = v_all(half_row[i]) + v_load(half_col + v * SL_LANES);
            v_store(m + i * SL_RAND_COLS + v * SL_LANES, last ? both - sum[i][v] : sum[i][v]);
        }
    }
}

static void
rand_tile(const float *restrict rows, const float *restrict panel, ptrdiff_t k, const float *restrict half_row,
          const float *restrict half_col, float *restrict m)
{
    const ptrdiff_t blocks = (k + RAND_DEPTH - 1) / RAND_DEPTH, most = blocks > 0 ? (k + blocks - 1) / blocks : 0;
    ptrdiff_t a = 0;

    do {
        const ptrdiff_t depth = sl_least(most, k - a);
        for (ptrdiff_t c = 0; c < SL_RAND_COLS; c += RAND_PART) {
            for (ptrdiff_t i = 0; i < SL_RAND_ROWS; i += 4) {
                rand_four_rows(rows + i * k + a * 4, panel + a * SL_RAND_COLS + c, depth, a == 0, a + depth == k,
                               half_row + i, half_col + c, m + i * SL_RAND_COLS + c);
            }
        }
        a += depth;
    } while (a < k);
}

/* place[i][j] = the whole part of 2^30 min(max(m[i][j], 0), 1), for SL_RAND_FEED columns of a tile. */
static void
rand_places(const float *m, int32_t *place)
{
    for (ptrdiff_t t = 0; t < SL_RAND_ROWS * RAND_VECTORS; t++) {
        const vf x = v_load(m + t / RAND_VECTORS * SL_RAND_COLS + t % RAND_VECTORS * SL_LANES);
        const vf kept = v_at_most(v_at_least(x, v_all(0.0F)), v_all(1.0F));
        const vi p = __builtin_convertvector(kept * v_all(0x1p30F), vi);
        memcpy(place + t * SL_LANES, &p, sizeof p);
    }
}

/* col[j] = sum_i |x[i][j] - y[i][j]|, and row[i][j] += the same terms where row is given. */
static void
rand_difference(const float *restrict x, const float *restrict y, float *restrict col, float *restrict row)
{
    for (ptrdiff_t c = 0; c < SL_RAND_COLS; c += RAND_PART) {
        vf sum[RAND_WIDE];
        for (int v = 0; v < RAND_WIDE; v++) {
            sum[v] = v_all(0.0f);
        }
        for (ptrdiff_t i = 0; i < SL_RAND_ROWS; i++) {
            for (int v = 0; v < RAND_WIDE; v++) {
                const ptrdiff_t at = i * SL_RAND_COLS + c + v * SL_LANES;
                const vf difference = v_load(x + at) - v_load(y + at);
                const vf term = rand_abs(difference);
                sum[v] += term;
                if (row != NULL) {
                    v_store(row + at, v_load(row + at) + term);
                }
            }
        }
        for (int v = 0; v < RAND_WIDE; v++) {
            v_store(col + c + v * SL_LANES, sum[v]);
        }
    }
}

/* out[a] = sum over the tile of sign[i][j] |rows[i][a] - panel[a][j]|; rows in groups [16][k][4] as for rand_tile, sign (SL_RAND_ROWS, SL_RAND_COLS). */
static void
rand_parts(const float *restrict rows, const float *restrict panel, ptrdiff_t k, const float *restrict sign,
           double *restrict out)
{
    for (ptrdiff_t a = 0; a < k; a++) {
        vf sum[4][RAND_VECTORS], q[RAND_VECTORS];
        float lanes[SL_RAND_FEED];
        double total = 0.0;
        for (int v = 0; v < RAND_VECTORS; v++) {
            for (int i = 0; i < 4; i++) {
                sum[i][v] = v_all(0.0f);
            }
        }
        for (ptrdiff_t c = 0; c < SL_RAND_COLS; c += SL_RAND_FEED) {
            for (int v = 0; v < RAND_VECTORS; v++) {
                q[v] = v_load(panel + a * SL_RAND_COLS + c + v * SL_LANES);
            }
            for (ptrdiff_t g = 0; g < SL_RAND_ROWS; g += 4) {
                for (int i = 0; i < 4; i++) {
                    const vf x = v_all(rows[g * k + a * 4 + i]);
                    for (int v = 0; v < RAND_VECTORS; v++) {
                        const vf difference = x - q[v];
                        sum[i][v] = v_fma(rand_abs(difference),
                                          v_load(sign + (g + i) * SL_RAND_COLS + c + v * SL_LANES), sum[i][v]);
                    }
                }
            }
        }
        for (int v = 0; v < RAND_VECTORS; v++) {
            v_store(lanes + v * SL_LANES, (sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
        }
        for (int l = 0; l < SL_RAND_FEED; l++) {
            total += (double)lanes[l];
        }
        out[a] = total;
    }
}

/* Half the L1 distance of two rows; 16 lanes. */
static double
rand_distance(const float *restrict x, const float *restrict y, ptrdiff_t k)
{
    vf sum[RAND_VECTORS];
    float lanes[SL_RAND_FEED];
    double total = 0.0;
    ptrdiff_t a = 0;

    for (int v = 0; v < RAND_VECTORS; v++) {
        sum[v] = v_all(0.0f);
    }
    for (; a + SL_RAND_FEED <= k; a += SL_RAND_FEED) {
        for (int v = 0; v < RAND_VECTORS; v++) {
            const vf difference = v_load(x + a + v * SL_LANES) - v_load(y + a + v * SL_LANES);
            sum[v] += rand_abs(difference);
        }
    }
    for (int v = 0; v < RAND_VECTORS; v++) {
        v_store(lanes + v * SL_LANES, sum[v]);
    }
    for (int l = 0; a < k; a++, l++) {
        lanes[l] += x[a] > y[a] ? x[a] - y[a] : y[a] - x[a];
    }
    for (int l = 0; l < SL_RAND_FEED; l++) {
        total += (double)lanes[l];
    }
    return 0.5 * total;
}
