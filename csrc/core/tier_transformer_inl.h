/* Inner loops of transformers: normalisation of a row, attention of one query. */

/* sum (x[i] - centre)^2 in double over 16 fixed lanes: the same bits in every tier. */
static double
sum_squares(const float *x, ptrdiff_t n, double centre)
{
    double lane[16] = {0.0};
    ptrdiff_t i = 0;

    for (; i + 16 <= n; i += 16) {
        for (int l = 0; l < 16; l++) {
            const double d = (double)x[i + l] - centre;
            lane[l] += d * d;
        }
    }
    for (int l = 0; i < n; i++, l++) {
        const double d = (double)x[i] - centre;
        lane[l] += d * d;
    }
    for (int width = 8; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] += lane[l + width];
        }
    }
    return lane[0];
}

/* y = (x - mean) / sqrt(mean of (x - mean)^2 + eps) * weight + bias; mean = 0 where not centred; weight, bias may be NULL; y may be x. */
static void
norm_row(const float *x, ptrdiff_t n, double eps, int centred, const float *weight, const float *bias, float *y)
{
    const double mean = centred ? reduce_sum(x, n, 0) / (double)n : 0.0;
    const double factor = 1.0 / sqrt(sum_squares(x, n, mean) / (double)n + eps);
    const vf centre = v_all((float)mean), scale = v_all((float)factor);
    ptrdiff_t i = 0;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        vf v = (v_load(x + i) - centre) * scale;
        v = weight != NULL ? v * v_load(weight + i) : v;
        v_store(y + i, bias != NULL ? v + v_load(bias + i) : v);
    }
    if (i < n) {
        vf v = (v_load_some(x + i, n - i) - centre) * scale;
        v = weight != NULL ? v * v_load_some(weight + i, n - i) : v;
        v_store_some(y + i, n - i, bias != NULL ? v + v_load_some(bias + i, n - i) : v);
    }
}

SL_INLINE float
dot(const float *a, const float *b, ptrdiff_t n)
{
    vf sum = v_all(0.0F), more = v_all(0.0F);
    ptrdiff_t i = 0;
    float lane[SL_LANES], rest = 0.0F;

    for (; i + 2 * SL_LANES <= n; i += 2 * SL_LANES) {
        sum = v_fma(v_load(a + i), v_load(b + i), sum);
        more = v_fma(v_load(a + i + SL_LANES), v_load(b + i + SL_LANES), more);
    }
    for (; i < n; i++) {
        rest += a[i] * b[i];
    }
    v_store(lane, sum + more);
    for (int width = SL_LANES / 2; width > 0; width /= 2) {
        for (int l = 0; l < width; l++) {
            lane[l] += lane[l + width];
        }
    }
    return lane[0] + rest;
}

/* y (depth) = sum_j softmax_j(scale <q, keys[j]> + bias[j]) values[j] over n >= 1 keys (n, width) and values (n, depth); scores: n floats. */
static void
attention_row(const float *q, const float *keys, const float *values, ptrdiff_t width, ptrdiff_t depth, ptrdiff_t n,
              float scale, const float *bias, float *scores, float *y)
{
    for (ptrdiff_t j = 0; j < n; j++) {
        scores[j] = scale * dot(q, keys + j * width, width) + (bias != NULL ? bias[j] : 0.0F);
    }
    softmax_row(scores, n, scores);
    memset(y, 0, (size_t)depth * sizeof *y);
    for (ptrdiff_t j = 0; j < n; j++) {
        const float *row = values + j * depth;
        const vf factor = v_all(scores[j]);
        ptrdiff_t i = 0;
        for (; i + SL_LANES <= depth; i += SL_LANES) {
            v_store(y + i, v_fma(factor, v_load(row + i), v_load(y + i)));
        }
        for (; i < depth; i++) {
            y[i] += scores[j] * row[i];
        }
    }
}
