/* Derivatives of activations. */

/* act'(x) s from the saved value v; kind is a constant where this is inlined. */
SL_INLINE vf
v_slope(vf v, vf s, const int kind)
{
    const vf zero = v_all(0.0F), one = v_all(1.0F);
    vf t;

    switch (kind) {
    case SL_ACT_RELU:
        return v_select(v > zero, s, zero);
    case SL_ACT_RELU6:
        return v_select((v > zero) & (v < v_all(6.0F)), s, zero);
    case SL_ACT_SIGMOID:
        return s * v * (one - v);
    case SL_ACT_HARDSIGMOID:
        return v_select((v > zero) & (v < one), s / v_all(6.0F), zero);
    case SL_ACT_TANH:
        return s * (one - v * v);
    case SL_ACT_SILU:
        t = one / (one + v_exp(-v));
        return s * (t * (one + v * (one - t)));
    case SL_ACT_HARDSWISH:
        t = v_select(v < v_all(3.0F), s * ((v + v + v_all(3.0F)) / v_all(6.0F)), s);
        return v_select(v > v_all(-3.0F), t, zero);
    case SL_ACT_GELU:
        t = v_exp(v * v * v_all(-0.5F)) * v_all(0.398942280F);
        return s * v_fma(v, t, v_normal(v));
    case SL_ACT_GELU_TANH:
        t = one / (one + v_exp(v_all(-0x1.988454p+0F) * v_fma(v * v * v, v_all(0.044715F), v)));
        return s * (t + v * t * (one - t) * v_all(0x1.988454p+0F) * v_fma(v * v, v_all(0.134145F), one));
    case SL_ACT_QUICK_GELU:
        t = one / (one + v_exp(v_all(-1.702F) * v));
        return s * (t + v * t * (one - t) * v_all(1.702F));
    default:
        return s;
    }
}

#define SL_SLOPE_CASE(kind)                                                                                            \
    case kind:                                                                                                         \
        SL_MAP2(v_slope(v, w, kind)) break;

/* y[i] = act'(x[i]) z[i], x the saved values */
static void
map_slope(const float *x, const float *z, ptrdiff_t n, sl_activation kind, float *y)
{
    switch (kind) {
        SL_SLOPE_CASE(SL_ACT_RELU)
        SL_SLOPE_CASE(SL_ACT_RELU6)
        SL_SLOPE_CASE(SL_ACT_SIGMOID)
        SL_SLOPE_CASE(SL_ACT_HARDSIGMOID)
        SL_SLOPE_CASE(SL_ACT_TANH)
        SL_SLOPE_CASE(SL_ACT_SILU)
        SL_SLOPE_CASE(SL_ACT_HARDSWISH)
        SL_SLOPE_CASE(SL_ACT_GELU)
        SL_SLOPE_CASE(SL_ACT_GELU_TANH)
        SL_SLOPE_CASE(SL_ACT_QUICK_GELU)
    default:
        SL_MAP2(v_slope(v, w, SL_ACT_NONE))
        break;
    }
}
