/* Inner loops of the contractions: variants of operands, work on results, packing without a transpose, products with few rows, interleaving. */

/* kind is a constant where this is inlined. */
SL_INLINE vf
v_seen(vf v, const int kind, vf gamma)
{
    const vf zero = v_all(0.0F);

    switch (kind) {
    case SL_SEEN_MAGNITUDE:
        return (vf)((vi)v & INT32_MAX);
    case SL_SEEN_POSITIVE:
        return v_at_least(v, zero);
    case SL_SEEN_NEGATIVE:
        return v_at_most(v, zero);
    case SL_SEEN_SQUARE:
        return v * v;
    case SL_SEEN_ONE:
        return v_all(1.0F);
    case SL_SEEN_MORE_POSITIVE:
        return v_fma(gamma, v_at_least(v, zero), v);
    case SL_SEEN_MORE_NEGATIVE:
        return v_fma(gamma, v_at_most(v, zero), v);
    default:
        return v;
    }
}

#define SL_PER_VARIANT(MAP, OF)                                                                                        \
    switch (variant.seen) {                                                                                            \
    case SL_SEEN_MAGNITUDE:                                                                                            \
        MAP(OF(SL_SEEN_MAGNITUDE)) break;                                                                              \
    case SL_SEEN_POSITIVE:                                                                                             \
        MAP(OF(SL_SEEN_POSITIVE)) break;                                                                               \
    case SL_SEEN_NEGATIVE:                                                                                             \
        MAP(OF(SL_SEEN_NEGATIVE)) break;                                                                               \
    case SL_SEEN_SQUARE:                                                                                               \
        MAP(OF(SL_SEEN_SQUARE)) break;                                                                                 \
    case SL_SEEN_ONE:                                                                                                  \
        MAP(OF(SL_SEEN_ONE)) break;                                                                                    \
    case SL_SEEN_MORE_POSITIVE:                                                                                        \
        MAP(OF(SL_SEEN_MORE_POSITIVE)) break;                                                                          \
    case SL_SEEN_MORE_NEGATIVE:                                                                                        \
        MAP(OF(SL_SEEN_MORE_NEGATIVE)) break;                                                                          \
    default:                                                                                                           \
        MAP(OF(SL_SEEN_PLAIN)) break;                                                                                  \
    }

static void
map_variant(const float *x, ptrdiff_t n, sl_variant variant, float *y)
{
    const vf gamma = v_all(variant.gamma);

#define SL_OF(kind) v_seen(v, kind, gamma)
    SL_PER_VARIANT(SL_MAP, SL_OF)
#undef SL_OF
}

/* y[i] = part(z[i]) y[i] */
static void
map_factor(const float *z, ptrdiff_t n, sl_variant variant, float *y)
{
    const vf gamma = v_all(variant.gamma);
    const float *x = y;

#define SL_OF(kind) v *v_seen(w, kind, gamma)
    SL_PER_VARIANT(SL_MAP2, SL_OF)
#undef SL_OF
}

SL_INLINE vf
v_stabilised(vf v, vf eps, const int clip)
{
    const vi sign = (vi)(v < v_all(0.0F)) & INT32_MIN;
    const vf size = (vf)((vi)v & INT32_MAX);

    if (clip) {
        return (vf)((vi)v_at_least(size, eps) | sign); /* NaN stays NaN */
    }
    return v + (vf)((vi)eps | sign);
}

/* The steps of sl_finish on y[0 .. n), the other arrays beginning `offset` floats in. */
static void
map_finish(const sl_finish *f, ptrdiff_t offset, ptrdiff_t n, float *y)
{
    const vf eps = v_all(f->eps), below = v_all(f->below), zero = v_all(0.0F);
    const float *x = y, *z = f->addend + offset;

    if (f->addend != NULL) {
        SL_MAP2(v + w)
    }
    if (f->numerator != NULL && f->clip) {
        z = f->numerator + offset;
        SL_MAP2(w / v_stabilised(v, eps, 1))
    } else if (f->numerator != NULL) {
        z = f->numerator + offset;
        SL_MAP2(w / v_stabilised(v, eps, 0))
    }
    if (f->factor != NULL) {
        map_factor(f->factor + offset, n, f->part, y);
    }
    if (f->scale != 1.0F) {
        map_scale(y, n, f->scale, y);
    }
    if (f->sum != NULL) {
        z = f->sum + offset;
        SL_MAP2(v + w)
    }
    if (f->mask != NULL) {
        z = f->mask + offset;
        SL_MAP2(v_select((w > zero) & (w < below), v, zero))
    }
}

/* dst [k][width] = rows floats of each of the k rows of src; missing ones become 0.  width is a constant where this is inlined. */
SL_INLINE void
copy_rows(const int width, const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst)
{
    for (ptrdiff_t p = 0; p < k; p++) {
        const float *from = src + p * ld;
        float *to = dst + p * width;
        if (rows == width) {
            SL_UNROLL
            for (int i = 0; i + SL_LANES <= width; i += SL_LANES) {
                v_store(to + i, v_load(from + i));
            }
            SL_UNROLL
            for (int i = width - width % SL_LANES; i < width; i++) {
                to[i] = from[i];
            }
        } else {
            for (ptrdiff_t i = 0; i < width; i++) {
                to[i] = i < rows ? from[i] : 0.0F;
            }
        }
    }
}

static void
copy_a(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst)
{
    copy_rows(SL_MR, src, ld, rows, k, dst);
}

static void
copy_b(const float *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, float *dst)
{
    copy_rows(SL_NR, src, ld, rows, k, dst);
}

/* For each panel of SL_MR channels: dst [n_taps][SL_MR] = taps of the kernels of one output, `kernel` floats a channel; panels lie `panel` floats apart.
 * Missing channels become 0. */
static void
pack_taps(const float *src, ptrdiff_t kernel, const ptrdiff_t *taps, ptrdiff_t n_taps, ptrdiff_t channels, float *dst,
          ptrdiff_t panel)
{
    for (ptrdiff_t c = 0; c < channels; c += SL_MR, src += SL_MR * kernel, dst += panel) {
        const ptrdiff_t rows = sl_least(SL_MR, channels - c);
        for (ptrdiff_t t = 0; t < n_taps; t++) {
            const float *from = src + taps[t];
            float *to = dst + t * SL_MR;
            if (rows == SL_MR) {
                SL_UNROLL
                for (int i = 0; i < SL_MR; i++) {
                    to[i] = from[i * kernel];
                }
            } else {
                for (ptrdiff_t i = 0; i < SL_MR; i++) {
                    to[i] = i < rows ? from[i * kernel] : 0.0F;
                }
            }
        }
    }
}

/* Four rows of b; m is a constant where this is inlined.  The rows that come next are asked for: they are far apart in memory. */
SL_INLINE void
axpy_four(const int m, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, ptrdiff_t n, float *acc,
          ptrdiff_t ldacc)
{
    ptrdiff_t j = 0;

    for (; j + SL_LANES <= n; j += SL_LANES) {
        vf right[4];
        SL_UNROLL
        for (int q = 0; q < 4; q++) {
            right[q] = v_load(b + q * ldb + j);
            if (j % 16 == 0) {
                __builtin_prefetch(b + (q + 4) * ldb + j, 0, 2);
            }
        }
        SL_UNROLL
        for (int i = 0; i < m; i++) {
            vf v = v_load(acc + i * ldacc + j);
            SL_UNROLL
            for (int q = 0; q < 4; q++) {
                v = v_fma(v_all(a[i * lda + q]), right[q], v);
            }
            v_store(acc + i * ldacc + j, v);
        }
    }
    for (ptrdiff_t q = 0; j < n && q < 4; q++) {
        const vf right = v_load_some(b + q * ldb + j, n - j);
        for (ptrdiff_t i = 0; i < m; i++) {
            const vf v = v_load_some(acc + i * ldacc + j, n - j);
            v_store_some(acc + i * ldacc + j, n - j, v_fma(v_all(a[i * lda + q]), right, v));
        }
    }
}

#define SL_AXPY_CASE(rows)                                                                                             \
    case rows:                                                                                                         \
        axpy_four(rows, a + p, lda, b + p * ldb, ldb, n, acc, ldacc);                                                  \
        break;

/* acc (m, n) += a (m, k) b (k, n), in ascending order of k; row distances lda, ldb, ldacc; 1 <= m <= 8. */
static void
axpy_rows(const float *a, ptrdiff_t lda, ptrdiff_t m, const float *b, ptrdiff_t ldb, ptrdiff_t k, ptrdiff_t n,
          float *acc, ptrdiff_t ldacc)
{
    ptrdiff_t p = 0;

    for (; p + 4 <= k; p += 4) {
        switch (m) {
            SL_AXPY_CASE(1)
            SL_AXPY_CASE(2)
            SL_AXPY_CASE(3)
            SL_AXPY_CASE(4)
            SL_AXPY_CASE(5)
            SL_AXPY_CASE(6)
            SL_AXPY_CASE(7)
        default:
            axpy_four(8, a + p, lda, b + p * ldb, ldb, n, acc, ldacc);
        }
    }
    for (; p < k; p++) {
        for (ptrdiff_t j = 0; j < n; j += SL_LANES) {
            const ptrdiff_t some = sl_least(SL_LANES, n - j);
            const vf right = v_load_some(b + p * ldb + j, some);
            for (ptrdiff_t i = 0; i < m; i++) {
                const vf v = v_load_some(acc + i * ldacc + j, some);
                v_store_some(acc + i * ldacc + j, some, v_fma(v_all(a[i * lda + p]), right, v));
            }
        }
    }
}

/* y[2 i] = even[i], y[2 i + 1] = odd[i], n floats in all; reads and writes no other. */
static void
zip_rows(const float *even, const float *odd, ptrdiff_t n, float *y)
{
    ptrdiff_t i = 0;

    for (; 2 * (i + SL_LANES) <= n; i += SL_LANES) {
        const vf a = v_load(even + i), b = v_load(odd + i);
        v_store(y + 2 * i, SL_SHUFFLE(a, b, SL_INTERLEAVE_LOW));
        v_store(y + 2 * i + SL_LANES, SL_SHUFFLE(a, b, SL_INTERLEAVE_HIGH));
    }
    for (; 2 * i < n; i++) {
        y[2 * i] = even[i];
        if (2 * i + 1 < n) {
            y[2 * i + 1] = odd[i];
        }
    }
}

/* sum of x[i] z[i * step] in double over 8 fixed lanes */
static double
dot_double(const float *x, const float *z, ptrdiff_t step, ptrdiff_t n)
{
    double lane[8] = {0.0};
    ptrdiff_t i = 0;

    if (step == 1) {
        for (; i + 8 <= n; i += 8) {
            for (int l = 0; l < 8; l++) {
                lane[l] += (double)x[i + l] * (double)z[i + l];
            }
        }
    }
    for (int l = 0; i < n; i++, l = (l + 1) % 8) {
        lane[l] += (double)x[i] * (double)z[i * step];
    }
    for (int width = 4; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] += lane[l + width];
        }
    }
    return lane[0];
}
