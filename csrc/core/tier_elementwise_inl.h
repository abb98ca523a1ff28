/* Elementwise inner loops: activations, sums, products, affine maps, softmax rows, reductions. */

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6 in r (own minimax fit, relative error 3.1e-9), scaled by 2^n in two steps so that
 * subnormal results round once.  At most 1 ulp with FMA, 2 without; exp(NaN) = NaN, exp(-inf) = 0, exp(inf) = inf, overflow gives inf. */
SL_INLINE vf
v_exp(vf x)
{
    const vf shift = v_all(0x1.8p23F); /* adding it rounds to an integer in the low bits */
    const vf bounded = v_at_most(v_at_least(x, v_all(-104.0F)), v_all(89.0F));
    const vf shifted = v_fma(bounded, v_all(0x1.715476p+0F), shift);
    const vf n = shifted - shift;
    const vi power = (vi)shifted - (vi)shift, half = power >> 1;
    vf r = v_fma(n, v_all(-0x1.63p-1F), bounded), p = v_all(0x1.6a2256p-10F), y;

    r = v_fma(n, v_all(0x1.bd0106p-13F), r);
    p = v_fma(p, r, v_all(0x1.123b02p-7F));
    p = v_fma(p, r, v_all(0x1.5558f8p-5F));
    p = v_fma(p, r, v_all(0x1.55549p-3F));
    p = v_fma(p, r, v_all(0x1.fffffcp-2F));
    y = v_fma(p, r * r, r) + v_all(1.0F);
    y = y * (vf)((half + 127) << 23);
    return y * (vf)((power - half + 127) << 23);
}

/* The normal distribution below z <= 0, Phi(z) = erfc(-z / sqrt 2) / 2: exp(-z^2 / 2) times a polynomial in 1 / (1 + 0.6 |z| / sqrt 2) (own fit,
 * relative error 2.6e-7), mirrored above. */
SL_INLINE vf
v_normal(vf z)
{
    const vf one = v_all(1.0F), half = v_all(0.5F);
    const vf u = (vf)((vi)z & INT32_MAX) * v_all(0x1.6a09e6p-1F);
    const vf t = one / v_fma(u, v_all(0.6F), one);
    vf p = v_all(0x1.107dc8p-4F), tail;

    p = v_fma(p, t, v_all(-0x1.4a0c42p-2F));
    p = v_fma(p, t, v_all(0x1.25014cp-1F));
    p = v_fma(p, t, v_all(-0x1.64ce54p-2F));
    p = v_fma(p, t, v_all(-0x1.d831e2p-4F));
    p = v_fma(p, t, v_all(0x1.b3f69ap-5F));
    p = v_fma(p, t, v_all(0x1.16236cp-3F));
    p = v_fma(p, t, v_all(0x1.205286p-2F));
    p = v_fma(p, t, v_all(0x1.5a3a66p-2F));
    p = v_fma(p, t, v_all(0x1.5aa794p-2F));
    tail = p * t * half * v_exp(-(u * u));
    return v_select(z > v_all(0.0F), one - tail, tail);
}

/* Odd polynomial (own fit, relative error 2.2e-8) for |x| < 0.65, (1 - e) / (1 + e) with e = exp(-2 |x|) beyond. */
SL_INLINE vf
v_tanh(vf x)
{
    const vf one = v_all(1.0F), square = x * x, size = (vf)((vi)x & INT32_MAX), e = v_exp(size * v_all(-2.0F));
    const vi sign = (vi)x & ~INT32_MAX;
    vf p = v_all(-0x1.7099e8p-8F);

    p = v_fma(p, square, v_all(0x1.51119cp-6F));
    p = v_fma(p, square, v_all(-0x1.b8162ep-5F));
    p = v_fma(p, square, v_all(0x1.110624p-3F));
    p = v_fma(p, square, v_all(-0x1.55552ep-2F));
    return v_select(size < v_all(0.65F), v_fma(p * square, x, x), (vf)((vi)((one - e) / (one + e)) | sign));
}

/* kind is a constant where this is inlined. */
SL_INLINE vf
v_activate(vf x, const int kind)
{
    const vf zero = v_all(0.0F), one = v_all(1.0F), six = v_all(6.0F);

    switch (kind) {
    case SL_ACT_RELU:
        return v_at_least(x, zero);
    case SL_ACT_RELU6:
        return v_at_most(v_at_least(x, zero), six);
    case SL_ACT_SIGMOID:
        return one / (one + v_exp(-x));
    case SL_ACT_SILU:
        return x / (one + v_exp(-x));
    case SL_ACT_HARDSIGMOID:
        return v_at_most(v_at_least(x + v_all(3.0F), zero), six) / six;
    case SL_ACT_HARDSWISH:
        return x * v_at_most(v_at_least(x + v_all(3.0F), zero), six) / six;
    case SL_ACT_GELU:
        return x * v_normal(x);
    case SL_ACT_GELU_TANH:
        return x / (one + v_exp(v_all(-0x1.988454p+0F) * v_fma(x * x * x, v_all(0.044715F), x)));
    case SL_ACT_QUICK_GELU:
        return x / (one + v_exp(v_all(-1.702F) * x));
    case SL_ACT_TANH:
        return v_tanh(x);
    default:
        return x;
    }
}

/* The last n < SL_LANES floats of a row, padded with 0. */
SL_INLINE vf
v_load_some(const float *p, ptrdiff_t n)
{
    float part[SL_LANES] = {0.0F};

    memcpy(part, p, (size_t)n * sizeof *p);
    return v_load(part);
}

SL_INLINE void
v_store_some(float *p, ptrdiff_t n, vf v)
{
    float part[SL_LANES];

    v_store(part, v);
    memcpy(p, part, (size_t)n * sizeof *p);
}

/* y[i] = expression of x[i] (and z[i], where given) for i < n; v is the vector of x, w that of z. */
#define SL_MAP(expression)                                                                                             \
    {                                                                                                                  \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + SL_LANES <= n; i += SL_LANES) {                                                                     \
            const vf v = v_load(x + i);                                                                                \
            v_store(y + i, expression);                                                                                \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const vf v = v_load_some(x + i, n - i);                                                                    \
            v_store_some(y + i, n - i, expression);                                                                    \
        }                                                                                                              \
    }
#define SL_MAP2(expression)                                                                                            \
    {                                                                                                                  \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + SL_LANES <= n; i += SL_LANES) {                                                                     \
            const vf v = v_load(x + i), w = v_load(z + i);                                                             \
            v_store(y + i, expression);                                                                                \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            const vf v = v_load_some(x + i, n - i), w = v_load_some(z + i, n - i);                                     \
            v_store_some(y + i, n - i, expression);                                                                    \
        }                                                                                                              \
    }
#define SL_PER_ACTIVATION(kind, MAP, expression)                                                                       \
    switch (kind) {                                                                                                    \
    case SL_ACT_RELU:                                                                                                  \
        MAP(v_activate(expression, SL_ACT_RELU)) break;                                                                \
    case SL_ACT_RELU6:                                                                                                 \
        MAP(v_activate(expression, SL_ACT_RELU6)) break;                                                               \
    case SL_ACT_SIGMOID:                                                                                               \
        MAP(v_activate(expression, SL_ACT_SIGMOID)) break;                                                             \
    case SL_ACT_SILU:                                                                                                  \
        MAP(v_activate(expression, SL_ACT_SILU)) break;                                                                \
    case SL_ACT_HARDSIGMOID:                                                                                           \
        MAP(v_activate(expression, SL_ACT_HARDSIGMOID)) break;                                                         \
    case SL_ACT_HARDSWISH:                                                                                             \
        MAP(v_activate(expression, SL_ACT_HARDSWISH)) break;                                                           \
    case SL_ACT_GELU:                                                                                                  \
        MAP(v_activate(expression, SL_ACT_GELU)) break;                                                                \
    case SL_ACT_GELU_TANH:                                                                                             \
        MAP(v_activate(expression, SL_ACT_GELU_TANH)) break;                                                           \
    case SL_ACT_QUICK_GELU:                                                                                            \
        MAP(v_activate(expression, SL_ACT_QUICK_GELU)) break;                                                          \
    case SL_ACT_TANH:                                                                                                  \
        MAP(v_activate(expression, SL_ACT_TANH)) break;                                                                \
    default:                                                                                                           \
        MAP(expression) break;                                                                                         \
    }

static void
map_activate(const float *x, ptrdiff_t n, sl_activation kind, float *y)
{
    SL_PER_ACTIVATION(kind, SL_MAP, v)
}

static void
map_add(const float *x, const float *z, ptrdiff_t n, sl_activation kind, float *y)
{
    SL_PER_ACTIVATION(kind, SL_MAP2, v + w)
}

static void
map_multiply(const float *x, const float *z, ptrdiff_t n, float *y)
{
    SL_MAP2(v * w)
}

static void
map_scale(const float *x, ptrdiff_t n, float factor, float *y)
{
    SL_MAP(v * v_all(factor))
}

static void
map_scale_shift(const float *x, ptrdiff_t n, float factor, float term, sl_activation kind, float *y)
{
    const vf scale = v_all(factor), shift = v_all(term);

    SL_PER_ACTIVATION(kind, SL_MAP, v * scale + shift)
}

/* Largest of n >= 1 values (of their magnitudes, where asked for); NaN if any is. */
static float
reduce_max(const float *x, ptrdiff_t n, int magnitude)
{
    const vi sign = (vi){0} + (magnitude ? INT32_MAX : -1);
    vf top = v_all(-INFINITY);
    vi nan = {0};
    ptrdiff_t i = 0;
    float best;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        const vf v = (vf)((vi)v_load(x + i) & sign);
        top = v_at_least(top, v);
        nan |= v != v;
    }
    best = top[0];
    for (int l = 0; l < SL_LANES; l++) {
        best = top[l] > best ? top[l] : best;
        if (nan[l]) {
            return NAN;
        }
    }
    for (; i < n; i++) {
        const float v = magnitude ? fabsf(x[i]) : x[i];
        if (v != v) {
            return NAN;
        }
        best = v > best ? v : best;
    }
    return best;
}

/* Sum in double over 16 fixed lanes: the same bits in every tier. */
static double
reduce_sum(const float *x, ptrdiff_t n, int magnitude)
{
    double lane[16] = {0.0};
    ptrdiff_t i = 0;

    if (magnitude) {
        for (; i + 16 <= n; i += 16) {
            for (int l = 0; l < 16; l++) {
                lane[l] += (double)fabsf(x[i + l]);
            }
        }
    } else {
        for (; i + 16 <= n; i += 16) {
            for (int l = 0; l < 16; l++) {
                lane[l] += (double)x[i + l];
            }
        }
    }
    for (int l = 0; i < n; i++, l++) {
        lane[l] += (double)(magnitude ? fabsf(x[i]) : x[i]);
    }
    for (int width = 8; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] += lane[l + width];
        }
    }
    return lane[0];
}

static void
softmax_row(const float *x, ptrdiff_t n, float *y)
{
    const float top = reduce_max(x, n, 0);
    const vf shift = v_all(top);
    float factor;

    SL_MAP(v_exp(v - shift))
    factor = (float)(1.0 / reduce_sum(y, n, 0));
    map_scale(y, n, factor, y);
}
