/* Elementwise work of relevance propagation. */

SL_INLINE vf
v_quotient(vf r, vf z, vf eps, const int clip)
{
    const vf zero = v_all(0.0F), sign = v_select(z < zero, v_all(-1.0F), v_all(1.0F));
    const vf t = clip ? sign * v_at_least(z * sign, eps) : z + eps * sign;

    return v_select((r == zero) | (t == zero), zero, r / t);
}

/* y[i] = x[i] / st(z[i]), 0 where x[i] or st(z[i]) is */
static void
map_quotient(const float *x, const float *z, ptrdiff_t n, float stabiliser, int clip, float *y)
{
    const vf eps = v_all(stabiliser);

    if (clip) {
        SL_MAP2(v_quotient(v, w, eps, 1))
    } else {
        SL_MAP2(v_quotient(v, w, eps, 0))
    }
}

/* above = x where z > 0, below = x where z < 0, else 0; bit 0 of the result: some above is not 0, bit 1: some below */
static int
map_by_sign(const float *x, const float *z, ptrdiff_t n, float *above, float *below)
{
    const vf zero = v_all(0.0F);
    vi any_above = (vi){0}, any_below = (vi){0};
    int found = 0;

    for (ptrdiff_t i = 0; i < n; i += SL_LANES) {
        const ptrdiff_t left = sl_least(SL_LANES, n - i);
        const vf v = left == SL_LANES ? v_load(x + i) : v_load_some(x + i, left);
        const vf w = left == SL_LANES ? v_load(z + i) : v_load_some(z + i, left);
        const vf up = v_select(w > zero, v, zero), down = v_select(w < zero, v, zero);
        any_above |= up != zero;
        any_below |= down != zero;
        if (left == SL_LANES) {
            v_store(above + i, up);
            v_store(below + i, down);
        } else {
            v_store_some(above + i, left, up);
            v_store_some(below + i, left, down);
        }
    }
    for (int i = 0; i < SL_LANES; i++) {
        found |= (any_above[i] != 0) | (any_below[i] != 0) << 1;
    }
    return found;
}

SL_INLINE vf
v_part(vf x, const sl_seen part)
{
    const vf zero = v_all(0.0F);

    return part == SL_SEEN_POSITIVE   ? v_select(x < zero, zero, x)
           : part == SL_SEEN_NEGATIVE ? v_select(x > zero, zero, x)
                                      : x;
}

/* y = factor * part(z) * x + sum, sum may be NULL; part is a constant where this is inlined */
SL_INLINE void
times_part(const float *x, const float *z, const float *sum, ptrdiff_t n, const sl_seen part, float factor, float *y)
{
    const vf scale = v_all(factor);

    if (sum == NULL) {
        SL_MAP2(scale * (v_part(w, part) * v))
        return;
    }
    for (ptrdiff_t i = 0; i < n; i += SL_LANES) {
        const ptrdiff_t left = sl_least(SL_LANES, n - i);
        if (left == SL_LANES) {
            v_store(y + i, scale * (v_part(v_load(z + i), part) * v_load(x + i)) + v_load(sum + i));
        } else {
            const vf v = scale * (v_part(v_load_some(z + i, left), part) * v_load_some(x + i, left));
            v_store_some(y + i, left, v + v_load_some(sum + i, left));
        }
    }
}

static void
map_times(const float *x, const float *z, const float *sum, ptrdiff_t n, sl_seen part, float factor, float *y)
{
    switch (part) {
    case SL_SEEN_POSITIVE:
        times_part(x, z, sum, n, SL_SEEN_POSITIVE, factor, y);
        break;
    case SL_SEEN_NEGATIVE:
        times_part(x, z, sum, n, SL_SEEN_NEGATIVE, factor, y);
        break;
    default:
        times_part(x, z, sum, n, SL_SEEN_PLAIN, factor, y);
    }
}
