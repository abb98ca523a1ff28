/* The contract of sl_concept_pairs.h, without Python: every route against the sorting identity in double; plain, under sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_concept_pairs.h"

enum { N = 4001, K = 3 };

typedef struct {
    float values[K * N], sorted[K * N];
} columns;

static int
ascending(const void *x, const void *y)
{
    const float a = *(const float *)x, b = *(const float *)y;

    return (a > b) - (a < b);
}

static int
ascending_wide(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* A share of the entries is not zero: small values, or one of `levels` levels where that is not 0. */
static void
make_columns(columns *c, double share, int levels, uint64_t seed)
{
    float x[N], there[N];

    for (int k = 0; k < K; k++) {
        check_fill(x, N, seed + 2 * (uint64_t)k);
        check_fill(there, N, seed + 2 * (uint64_t)k + 1);
        for (int i = 0; i < N; i++) {
            const double u = fabs((double)x[i]), value = levels > 0 ? ceil(u * levels) / levels : pow(u, 6.0);
            c->values[k * N + i] = fabs((double)there[i]) < share ? (float)value : 0.0f;
        }
    }
    memcpy(c->sorted, c->values, sizeof c->values);
    for (int k = 0; k < K; k++) {
        qsort(c->sorted + k * N, N, sizeof *c->sorted, ascending);
    }
}

static double
spread(const float *p, const float *q, double sign)
{
    double v[N], sum = 0.0;

    for (int i = 0; i < N; i++) {
        v[i] = (double)p[i] + (q != NULL ? sign * (double)q[i] : 0.0);
    }
    qsort(v, N, sizeof *v, ascending_wide);
    for (int i = 0; i < N; i++) {
        sum += (double)(2 * i - N + 1) * v[i];
    }
    return sum;
}

static void
compare(double share, int levels)
{
    static columns a, b;
    static double one[K * K], three[K * K], lone[K];
    const sl_concepts p = {a.values, a.sorted, K}, q = {b.values, b.sorted, K};

    make_columns(&a, share, levels, 5);
    make_columns(&b, share, levels, 50);
    memcpy(b.values, a.values, N * sizeof(float)); /* a column that both have */
    memcpy(b.sorted, a.sorted, N * sizeof(float));
    CHECK(sl_concept_distances_f32(&p, &q, N, 0, K, one, lone, 1) == SL_OK);
    CHECK(sl_concept_distances_f32(&p, &q, N, 0, K, three, lone, 3) == SL_OK);
    CHECK_SAME(one, three, sizeof one);
    for (int i = 0; i < K; i++) {
        for (int j = 0; j < K; j++) {
            const float *x = a.values + i * N, *y = b.values + j * N;
            const double exact = spread(x, y, 1.0) + spread(x, y, -1.0) - spread(x, NULL, 1.0) - spread(y, NULL, 1.0);
            CHECK_NEAR(one[i * K + j], exact / ((double)N * (N - 1)), 5e-8);
        }
        CHECK_NEAR(lone[i], spread(a.values + i * N, NULL, 1.0) / ((double)N * (N - 1)), 1e-9);
    }
}

static void
test_errors(void)
{
    static columns a;
    double distance[K * K], lone[K];
    const sl_concepts p = {a.values, a.sorted, K};

    make_columns(&a, 0.5, 0, 1);
    CHECK(sl_concept_distances_f32(&p, &p, 1, 0, K, distance, lone, 1) == SL_ERR_ARG);
    CHECK(sl_concept_distances_f32(&p, &p, N, 0, K + 1, distance, lone, 1) == SL_ERR_ARG);
    CHECK(sl_concept_distances_f32(&p, &p, N, 0, K, distance, lone, 0) == SL_ERR_ARG);
    a.sorted[N - 1] = 2.5f;
    CHECK(sl_concept_distances_f32(&p, &p, N, 0, K, distance, lone, 1) == SL_ERR_ARG);
}

int
main(void)
{
    const double shares[] = {0.0, 0.001, 0.01, 0.12, 0.3, 0.45, 0.7, 1.0};

    for (int s = 0; s < 8; s++) {
        compare(shares[s], 0);
        compare(shares[s], 4);
        compare(shares[s], 1);
    }
    test_errors();
    return CHECK_DONE();
}
