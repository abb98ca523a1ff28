/* The contracts of sl_hdbscan.h and sl_membership.h, without Python; run plain, under sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_hdbscan.h"
#include "sl/sl_membership.h"

enum { N = 150, D = 3, K = 4, SIZE = 5, ROWS = 2 * N };

typedef struct {
    int64_t low[N], high[N];
    double weight[N], core[N];
} result;

static void
make_points(double *x, uint64_t seed)
{
    float values[N * D];

    check_fill(values, N * D, seed);
    for (int i = 0; i < N * D; i++) {
        x[i] = (double)values[i] + 3.0 * (i / D % 3); /* three groups */
    }
}

static double
squared(const double *x, ptrdiff_t i, ptrdiff_t j)
{
    double sum = 0.0;

    for (ptrdiff_t t = 0; t < D; t++) {
        sum += (x[i * D + t] - x[j * D + t]) * (x[i * D + t] - x[j * D + t]);
    }
    return sum;
}

static sl_status
span(const double *x, int threads, result *r)
{
    sl_space *space = NULL;
    sl_mst *mst = NULL;
    int done = 0;
    sl_status status = sl_space_new(x, N, D, &space);

    if (status == SL_OK) {
        status = sl_mst_new(space, K, &mst);
    }
    while (status == SL_OK && !done) {
        status = sl_mst_step(mst, threads, &done);
    }
    if (status == SL_OK) {
        status = sl_mst_read(mst, r->low, r->high, r->weight, r->core);
    }
    sl_mst_free(mst);
    sl_space_free(space);
    return status;
}

/* Total weight by Prim's method from the definition. */
static double
least_total(const double *x, const double *core)
{
    double reach[N], total = 0.0;
    int in[N] = {1};

    for (int i = 0; i < N; i++) {
        reach[i] = fmax(fmax(core[0], core[i]), sqrt(squared(x, 0, i)));
    }
    for (int t = 1; t < N; t++) {
        int next = -1;
        for (int i = 0; i < N; i++) {
            next = !in[i] && (next < 0 || reach[i] < reach[next]) ? i : next;
        }
        in[next] = 1;
        total += reach[next];
        for (int i = 0; i < N; i++) {
            reach[i] = fmin(reach[i], fmax(fmax(core[next], core[i]), sqrt(squared(x, next, i))));
        }
    }
    return total;
}

static void
spanning_tree(void)
{
    double x[N * D], total = 0.0;
    result one, other;

    make_points(x, 1);
    memset(&one, 0, sizeof one);
    CHECK(span(x, 1, &one) == SL_OK);
    for (int t = 0; t + 1 < N; t++) {
        total += one.weight[t];
        CHECK(t == 0 || one.weight[t] >= one.weight[t - 1]);
    }
    CHECK_NEAR(total, least_total(x, one.core), 1e-9);
    for (int threads = 2; threads < 4; threads++) {
        memset(&other, 0, sizeof other);
        CHECK(span(x, threads, &other) == SL_OK);
        CHECK_SAME(&one, &other, sizeof one);
    }
}

static void
neighbours(void)
{
    double x[N * D], found[N * K];
    int32_t index[N * K];
    sl_space *space;

    make_points(x, 2);
    CHECK(sl_space_new(x, N, D, &space) == SL_OK);
    CHECK(sl_space_nearest(space, x, N, K, 0, N, index, found, 2) == SL_OK);
    for (int i = 0; i < N; i++) {
        int nearer = 0;
        for (int j = 0; j < N; j++) {
            nearer += squared(x, i, j) < found[i * K + K - 1];
        }
        CHECK(index[i * K] == i && nearer == K - 1);
    }
    x[0] = (double)NAN;
    CHECK(sl_space_nearest(space, x, N, K, 0, N, index, found, 1) == SL_ERR_NUMERIC);
    CHECK(sl_space_nearest(space, x, N, N + 1, 0, N, index, found, 1) == SL_ERR_ARG);
    sl_space_free(space);
    CHECK(sl_space_new(x, N, D, &space) == SL_ERR_NUMERIC && space == NULL);
    CHECK(sl_space_new(x, 0, D, &space) == SL_ERR_ARG);
    CHECK(sl_space_new(x, PTRDIFF_MAX / 2, D, &space) != SL_OK);
}

typedef struct {
    int64_t up[N], node[N], concept_of[N], labels[N];
    double birth[N], lmax[N], stability[N], lambda[N], strength[N], height[N * N];
    uint8_t selected[N], exemplar[N];
} clusters;

/* Clusters of the points; returns their number. */
static int
cluster(const double *x, sl_tree *tree, clusters *c)
{
    static result r;
    int64_t left[N], right[N], size[N], parent[ROWS], child[ROWS], child_size[ROWS];
    double lambda[ROWS];
    ptrdiff_t rows, T = 0;
    int k = 0;

    CHECK(span(x, 1, &r) == SL_OK);
    CHECK(sl_single_linkage(r.low, r.high, N, left, right, size) == SL_OK);
    CHECK(sl_condense(left, right, r.weight, size, N, SIZE, parent, child, lambda, child_size, &rows) == SL_OK);
    for (ptrdiff_t i = 0; i < rows; i++) {
        T = parent[i] - N + 1 > T ? parent[i] - N + 1 : T;
    }
    *tree = (sl_tree){N, T, c->up, c->birth, c->lmax, c->stability, c->node, c->lambda};
    CHECK(sl_tree_fill(parent, child, lambda, child_size, rows, tree) == SL_OK);
    CHECK(sl_tree_fill(parent, child, lambda, child_size, rows - 1, tree) == SL_ERR_ARG);
    CHECK(sl_tree_fill(parent, child, lambda, child_size, rows, tree) == SL_OK);
    CHECK(sl_tree_select(tree, SL_SELECT_LEAF, 0.0, c->selected) == SL_OK);
    CHECK(sl_tree_labels(tree, c->selected, c->concept_of, c->labels, c->strength, c->exemplar) == SL_OK);
    for (ptrdiff_t t = 0; t < T; t++) {
        k += c->selected[t];
    }
    CHECK(sl_tree_heights(tree, c->selected, k, c->height) == SL_OK);
    return k;
}

static void
memberships(void)
{
    static clusters c;
    double x[N * D], examples[N * D], P[N * N], again[N * N], top[N];
    int64_t start[N + 1] = {0};
    sl_exemplars *exemplars;
    sl_tree tree;
    ptrdiff_t found = 0;

    make_points(x, 3);
    const int k = cluster(x, &tree, &c);
    CHECK(k >= 2);
    for (int s = 0, t = 0; s < k; s++, t++) {
        while (!c.selected[t]) {
            t++;
        }
        top[s] = c.lmax[t];
        for (int i = 0; i < N; i++) {
            if (c.labels[i] == s && c.exemplar[i]) {
                memcpy(examples + found++ * D, x + i * D, D * sizeof *x);
            }
        }
        start[s + 1] = found;
    }
    CHECK(sl_exemplars_new(examples, start, k, D, &exemplars) == SL_OK);
    for (int variant = 0; variant < 2; variant++) {
        const sl_member_rules rules = {(sl_member)variant, tree.T, c.height, c.lmax, top, 1e9};
        CHECK(sl_membership(exemplars, x, N, c.node, c.lambda, &rules, 0, N, 0, P, 1) == SL_OK);
        CHECK(sl_membership(exemplars, x, N, c.node, c.lambda, &rules, 0, N, 0, again, 3) == SL_OK);
        CHECK_SAME(P, again, (size_t)(N * k) * sizeof *P);
        for (int i = 0; i < N; i++) {
            double sum = 0.0;
            for (int s = 0; s < k; s++) {
                sum += P[i * k + s];
                CHECK(!c.exemplar[i] || s == c.labels[i] || P[i * k + s] < 1e-100);
            }
            CHECK(sum >= 0.0 && sum <= 1.0 + 1e-12);
        }
        CHECK(sl_membership(exemplars, x, N, c.node, c.lambda, &rules, 0, N + 1, 0, P, 1) == SL_ERR_ARG);
        CHECK(sl_membership(exemplars, x, N, c.node, c.lambda, &rules, 8, N, 0, P, 1) == SL_ERR_ARG);
    }
    sl_exemplars_free(exemplars);
    start[1] = 0;
    CHECK(sl_exemplars_new(examples, start, k, D, &exemplars) == SL_ERR_ARG && exemplars == NULL);
}

static void
out_of_memory(void)
{
    double x[N * D];
    static result r;
    int failures = 0;

    make_points(x, 4);
    for (long after = 1; after < 40; after++) {
        sl_alloc_fail_after(after);
        const sl_status status = span(x, 2, &r);
        sl_alloc_fail_after(-1);
        CHECK(status == SL_OK || status == SL_ERR_NOMEM);
        failures += status == SL_ERR_NOMEM;
        if (status == SL_OK) {
            break;
        }
    }
    CHECK(failures >= 20);
}

int
main(void)
{
    neighbours();
    spanning_tree();
    memberships();
    out_of_memory();
    return CHECK_DONE();
}
