/* Inner loops of sl_gram.c, sl_near.c and sl_cross.c, compiled once per tier.  A row is the products of one sample with n others. */

/* bins[j] = the whole part of (v - low) * scale, within [0, last]; v = product, or own + square[j] - 2 product where square is given. */
static void
gram_bins(const float *product, const float *square, float own, float low, float scale, int32_t last, ptrdiff_t n,
          int32_t *bins)
{
    const vf zero = v_all(0.0F), most = v_all((float)last), down = v_all(low), factor = v_all(scale);

    for (ptrdiff_t j = 0; j < n; j += SL_LANES) {
        const ptrdiff_t left = sl_least(SL_LANES, n - j);
        vf v = left == SL_LANES ? v_load(product + j) : v_load_some(product + j, left);
        if (square != NULL) {
            const vf other = left == SL_LANES ? v_load(square + j) : v_load_some(square + j, left);
            v = v_at_least(v_fma(v, v_all(-2.0F), other + v_all(own)), zero);
        }
        v = (v - down) * factor;
        v = v_at_most(v_select((vi)(v > zero), v, zero),
                      most); /* NaN counts as 0, so that a bin is a bin whatever x holds */
        const vi bin = __builtin_convertvector(v, vi);
        memcpy(bins + j, &bin, (size_t)left * sizeof *bins);
    }
}

/* product[j] = exp(-rate max(0, own + square[j] - 2 product[j])), in place. */
static void
gram_gauss(float *product, const float *square, float own, float rate, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += SL_LANES) {
        const ptrdiff_t left = sl_least(SL_LANES, n - j);
        const int whole = left == SL_LANES;
        const vf v = whole ? v_load(product + j) : v_load_some(product + j, left);
        const vf other = whole ? v_load(square + j) : v_load_some(square + j, left);
        const vf away = v_at_least(v_fma(v, v_all(-2.0F), other + v_all(own)), v_all(0.0F));
        const vf k = v_exp(away * v_all(-rate));
        if (whole) {
            v_store(product + j, k);
        } else {
            v_store_some(product + j, left, k);
        }
    }
}

SL_INLINE double
gram_total(vd v)
{
    double sum = 0.0;

    for (int l = 0; l < SL_HALF; l++) {
        sum += v[l];
    }
    return sum;
}

/* sums (5) = (k.l, k.k, l.l, sum k, sum l); col_k += k, col_l += l.  Doubles. */
static void
gram_sums(const float *k, const float *l, ptrdiff_t n, double *col_k, double *col_l, double *sums)
{
    vd kl = vd_all(0.0), kk = vd_all(0.0), ll = vd_all(0.0), sk = vd_all(0.0), sl = vd_all(0.0);
    ptrdiff_t j = 0;

    for (; j + SL_HALF <= n; j += SL_HALF) {
        const vd a = vd_widen(k + j), b = vd_widen(l + j);
        kl = vd_fma(a, b, kl);
        kk = vd_fma(a, a, kk);
        ll = vd_fma(b, b, ll);
        sk += a;
        sl += b;
        vd_store(col_k + j, vd_load(col_k + j) + a);
        vd_store(col_l + j, vd_load(col_l + j) + b);
    }
    sums[0] = gram_total(kl);
    sums[1] = gram_total(kk);
    sums[2] = gram_total(ll);
    sums[3] = gram_total(sk);
    sums[4] = gram_total(sl);
    for (; j < n; j++) {
        const double a = (double)k[j], b = (double)l[j];
        sums[0] += a * b;
        sums[1] += a * a;
        sums[2] += b * b;
        sums[3] += a;
        sums[4] += b;
        col_k[j] += a;
        col_l[j] += b;
    }
}

/* hits[..] = ascending j with product[j] >= min(limit, limits[j]); returns their number. */
static ptrdiff_t
gram_hits(const float *product, float limit, const float *limits, ptrdiff_t n, int32_t *hits)
{
    ptrdiff_t found = 0, j = 0;

    for (; j + SL_LANES <= n; j += SL_LANES) {
        const vf v = v_load(product + j), bound = rand_min(v_all(limit), v_load(limits + j));
        const vi hit = (vi)(v >= bound);
        int32_t any = 0;
        for (int l = 0; l < SL_LANES; l++) {
            any |= hit[l];
        }
        if (any != 0) {
            for (int l = 0; l < SL_LANES; l++) {
                hits[found] = (int32_t)j + l;
                found += hit[l] != 0;
            }
        }
    }
    for (; j < n; j++) {
        hits[found] = (int32_t)j;
        found += product[j] >= (limit < limits[j] ? limit : limits[j]);
    }
    return found;
}

/* Double product of two vectors over 16 lanes, the same bits in every tier. */
static double
gram_dot(const double *a, const double *b, ptrdiff_t d)
{
    vd sum[SL_QUADS];
    double lane[16];
    ptrdiff_t j = 0;

    SL_UNROLL
    for (int q = 0; q < SL_QUADS; q++) {
        sum[q] = vd_all(0.0);
    }
    for (; j + 16 <= d; j += 16) {
        SL_UNROLL
        for (int q = 0; q < SL_QUADS; q++) {
            sum[q] += vd_load(a + j + q * SL_HALF) * vd_load(b + j + q * SL_HALF);
        }
    }
    SL_UNROLL
    for (int q = 0; q < SL_QUADS; q++) {
        vd_store(lane + q * SL_HALF, sum[q]);
    }
    for (int l = 0; j < d; j++, l++) {
        lane[l] += a[j] * b[j];
    }
    for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) {
            lane[l] += lane[l + half];
        }
    }
    return lane[0];
}

/* c (SL_CROSS_ROWS, SL_CROSS_COLUMNS) += left^T right; left [depth][SL_CROSS_ROWS], right [depth][SL_CROSS_COLUMNS]. */
#if SL_LANES == 16
#define SL_CROSS_ROWS 8
#else
#define SL_CROSS_ROWS 4
#endif
#define SL_CROSS_VECS 3
#define SL_CROSS_COLUMNS (SL_CROSS_VECS * SL_HALF)

static void
cross_tile(const double *left, const double *right, ptrdiff_t depth, double *c, ptrdiff_t ldc)
{
    vd acc[SL_CROSS_ROWS][SL_CROSS_VECS];

    SL_UNROLL
    for (int i = 0; i < SL_CROSS_ROWS; i++) {
        SL_UNROLL
        for (int j = 0; j < SL_CROSS_VECS; j++) {
            acc[i][j] = vd_all(0.0);
        }
    }
    for (ptrdiff_t t = 0; t < depth; t++) {
        vd b[SL_CROSS_VECS];
        SL_UNROLL
        for (int j = 0; j < SL_CROSS_VECS; j++) {
            b[j] = vd_load(right + t * SL_CROSS_COLUMNS + j * SL_HALF);
        }
        SL_UNROLL
        for (int i = 0; i < SL_CROSS_ROWS; i++) {
            const vd a = vd_all(left[t * SL_CROSS_ROWS + i]);
            SL_UNROLL
            for (int j = 0; j < SL_CROSS_VECS; j++) {
                acc[i][j] = vd_fma(a, b[j], acc[i][j]);
            }
        }
    }
    SL_UNROLL
    for (int i = 0; i < SL_CROSS_ROWS; i++) {
        SL_UNROLL
        for (int j = 0; j < SL_CROSS_VECS; j++) {
            double *out = c + i * ldc + j * SL_HALF;
            vd_store(out, vd_load(out) + acc[i][j]);
        }
    }
}
