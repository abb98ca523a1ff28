/* Inner loops of the streaming selection: the compare that rejects almost everything, and the ranks that sort a few candidates. */

enum { TOPM_GROUP = 32 }; /* values per test; a multiple of every SL_LANES */

#if SL_LANES == 16
SL_INLINE uint32_t
v_beats(vf v, vf limit)
{
    return (uint32_t)_mm512_cmp_ps_mask((__m512)v, (__m512)limit, _CMP_NLE_UQ);
}
#elif SL_LANES == 8
SL_INLINE uint32_t
v_beats(vf v, vf limit)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, (__m256)limit, _CMP_NLE_UQ));
}
#elif defined(__SSE2__)
SL_INLINE uint32_t
v_beats(vf v, vf limit)
{
    return (uint32_t)_mm_movemask_ps(_mm_cmpnle_ps((__m128)v, (__m128)limit));
}
#else
SL_INLINE uint32_t
v_beats(vf v, vf limit)
{
    const vi above = ~(v <= limit);

    return ((uint32_t)above[0] & 1U) | ((uint32_t)above[1] & 2U) | ((uint32_t)above[2] & 4U) |
           ((uint32_t)above[3] & 8U);
}
#endif

/* hits = the j < n in ascending order where !(values[j] <= limits[j]): the larger ones and NaN.  Returns how many; hits has room for n. */
static ptrdiff_t
topm_scan(const float *restrict values, const float *restrict limits, ptrdiff_t n, int32_t *restrict hits)
{
    ptrdiff_t found = 0, j = 0;

    for (; j + TOPM_GROUP <= n; j += TOPM_GROUP) {
        uint32_t mask = 0;
        SL_UNROLL
        for (int v = 0; v < TOPM_GROUP / SL_LANES; v++) {
            mask |= v_beats(v_load(values + j + v * SL_LANES), v_load(limits + j + v * SL_LANES)) << (v * SL_LANES);
        }
        while (mask != 0) {
            hits[found++] = (int32_t)j + __builtin_ctz(mask);
            mask &= mask - 1;
        }
    }
    for (; j < n; j++) {
        if (!(values[j] <= limits[j])) {
            hits[found++] = (int32_t)j;
        }
    }
    return found;
}

/* ranks[i] = how many of the n scores come before score i: those that are larger, and the equal ones at a smaller index.  scores and ranks have
 * room for n rounded up to SL_LANES; scores beyond n are overwritten. */
static void
topm_ranks(float *restrict scores, ptrdiff_t n, int32_t *restrict ranks)
{
    const ptrdiff_t padded = (n + SL_LANES - 1) / SL_LANES * SL_LANES;
    vi lane;

    for (int l = 0; l < SL_LANES; l++) {
        lane[l] = l;
    }
    for (ptrdiff_t i = n; i < padded; i++) {
        scores[i] = 0.0F;
    }
    for (ptrdiff_t i = 0; i < padded; i += SL_LANES) {
        const vf mine = v_load(scores + i);
        vi rank = lane - lane;
        for (ptrdiff_t j = 0; j < i; j++) {
            rank -= v_all(scores[j]) >= mine; /* a comparison is 0 or -1 */
        }
        for (ptrdiff_t j = i; j < i + SL_LANES && j < n; j++) {
            const vf other = v_all(scores[j]);
            rank -= (other > mine) | ((other == mine) & (lane > (vi)(lane - lane + (int32_t)(j - i))));
        }
        for (ptrdiff_t j = i + SL_LANES; j < n; j++) {
            rank -= v_all(scores[j]) > mine;
        }
        v_store((float *)(void *)(ranks + i), (vf)rank);
    }
}

SL_INLINE ptrdiff_t
count_above(const float *restrict x, ptrdiff_t n, float pivot)
{
    const vf limit = v_all(pivot);
    vi total = (vi)(limit > limit);
    ptrdiff_t count = 0, i = 0;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        total -= v_load(x + i) > limit; /* a comparison is 0 or -1 */
    }
    for (int l = 0; l < SL_LANES; l++) {
        count += total[l];
    }
    for (; i < n; i++) {
        count += x[i] > pivot;
    }
    return count;
}

/* The least and the largest of n >= 1 numbers without NaN. */
static void
topm_range(const float *restrict x, ptrdiff_t n, float *least, float *largest)
{
    vf low = v_all(x[0]), high = low;
    ptrdiff_t i = 0;

    for (; i + SL_LANES <= n; i += SL_LANES) {
        const vf v = v_load(x + i);
        low = v_at_most(low, v);
        high = v_at_least(high, v);
    }
    *least = *largest = x[0];
    for (int l = 0; l < SL_LANES; l++) {
        *least = low[l] < *least ? low[l] : *least;
        *largest = high[l] > *largest ? high[l] : *largest;
    }
    for (; i < n; i++) {
        *least = x[i] < *least ? x[i] : *least;
        *largest = x[i] > *largest ? x[i] : *largest;
    }
}

/* Floats in the order of integers, and back. */
SL_INLINE int64_t
float_key(float x)
{
    int32_t bits;

    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits < 0 ? bits ^ 0x7FFFFFFF : bits;
}

SL_INLINE float
key_float(int64_t key)
{
    const int32_t bits = key < 0 ? (int32_t)key ^ 0x7FFFFFFF : (int32_t)key;
    float x;

    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

/* A number that exactly m of list (m) and fresh (n) together exceed, by bisection of the floats between `below`, which all exceed, and the
 * largest.  Returns 0 if equal scores leave none. */
static int
topm_pivot(const float *restrict list, ptrdiff_t m, const float *restrict fresh, ptrdiff_t n, float below, float *pivot)
{
    float least, top, top_fresh;
    int64_t low, high;

    topm_range(list, m, &least, &top);
    topm_range(fresh, n, &least, &top_fresh);
    low = float_key(below);
    high = float_key(top > top_fresh ? top : top_fresh);
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        const float x = key_float(middle);
        const ptrdiff_t above = count_above(list, m, x) + count_above(fresh, n, x);
        if (above == m) {
            *pivot = x;
            return 1;
        }
        if (above > m) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return 0;
}
