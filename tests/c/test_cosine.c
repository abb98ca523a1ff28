/* The contract of sl_cosine.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_cosine.h"

enum { N = 517, D = 19, TOP = 4 };

static float x[N * D], unit[N * D], best[N], scores[2][N * TOP], matrix[N * N];
static int64_t index_of[N], nearest[N], partner[2][N], labels[2][N * TOP];
static double value[2][N];

static ptrdiff_t
redundancy(double *values, int64_t *partners, int n_threads)
{
    ptrdiff_t found = -1;

    CHECK(sl_unit_rows_f32(x, N, D, unit, index_of, &found, n_threads) == SL_OK);
    for (ptrdiff_t i = 0; i < found; i++) {
        best[i] = -INFINITY;
        nearest[i] = -1;
    }
    for (ptrdiff_t panel = sl_redundancy_panels(found) - 1; panel >= 0; panel--) { /* any order will do */
        CHECK(sl_redundancy_panel_f32(unit, found, D, panel, best, nearest, n_threads) == SL_OK);
    }
    CHECK(sl_redundancy_finish_f32(x, N, D, index_of, found, nearest, values, partners, n_threads) == SL_OK);
    return found;
}

static void
fill(void)
{
    check_fill(x, N * D, 3);
    x[7 * D] = NAN;
    for (int j = 0; j < D; j++) {
        x[9 * D + j] = 0.0F;
        x[500 * D + j] = x[260 * D + j] = x[4 * D + j]; /* three equal rows, in different panels */
    }
}

static void
whole_matrix_agrees(void)
{
    int wrong = 0;

    CHECK(redundancy(value[0], partner[0], 1) == N - 2);
    CHECK(redundancy(value[1], partner[1], 3) == N - 2);
    CHECK_SAME(value[0], value[1], sizeof value[0]);
    CHECK_SAME(partner[0], partner[1], sizeof partner[0]);
    CHECK(sl_cosine_f32(x, N, x, N, D, matrix, 2) == SL_OK);
    for (int i = 0; i < N; i++) {
        int64_t highest = -1;
        for (int j = 0; j < N; j++) {
            if (j != i && !isnan(matrix[i * N + j]) && (highest < 0 || matrix[i * N + j] > matrix[i * N + highest])) {
                highest = j;
            }
        }
        wrong += partner[0][i] != highest;
        wrong += highest < 0 ? !isnan(value[0][i]) : fabs(value[0][i] - (double)matrix[i * N + highest]) > 1e-6;
    }
    CHECK(wrong == 0);
    CHECK(isnan(value[0][7]) && isnan(value[0][9]) && partner[0][7] == -1);
    CHECK(partner[0][4] == 260 && partner[0][260] == 4 && partner[0][500] == 4);
    CHECK(value[0][4] <= 1.0 && value[0][4] > 1.0 - 1e-14);
}

static void
labels_agree(void)
{
    ptrdiff_t found = -1;
    int wrong = 0;

    CHECK(sl_unit_rows_f32(x, N, D, unit, index_of, &found, 1) == SL_OK);
    for (int t = 0; t < 2; t++) {
        CHECK(sl_top_labels_f32(x, N, D, unit, index_of, found, TOP, labels[t], scores[t], 1 + t) == SL_OK);
    }
    CHECK_SAME(labels[0], labels[1], sizeof labels[0]);
    CHECK_SAME(scores[0], scores[1], sizeof scores[0]);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < TOP; j++) {
            const int64_t label = labels[0][i * TOP + j];
            wrong += label < 0 ? !isnan(scores[0][i * TOP + j])
                               : scores[0][i * TOP + j] < matrix[i * N + label] ||
                                     scores[0][i * TOP + j] > matrix[i * N + label];
        }
    }
    CHECK(wrong == 0);
    CHECK(labels[0][7 * TOP] == -1 && labels[0][9 * TOP + 3] == -1);
    CHECK(labels[0][260 * TOP] == 4 && labels[0][260 * TOP + 1] == 260 && labels[0][260 * TOP + 2] == 500);
    CHECK(sl_top_labels_f32(x, 1, D, unit, index_of, 2, TOP, labels[0], scores[0], 1) == SL_OK);
    CHECK(labels[0][2] == -1 && isnan(scores[0][2])); /* fewer texts than places */
}

static void
refused(void)
{
    ptrdiff_t found;

    CHECK(sl_unit_rows_f32(x, -1, D, unit, index_of, &found, 1) == SL_ERR_ARG);
    CHECK(sl_cosine_f32(x, 2, x, 2, D, matrix, 0) == SL_ERR_ARG);
    CHECK(sl_cosine_f32(x, PTRDIFF_MAX / 2, x, 4, D, matrix, 1) == SL_ERR_OVERFLOW);
    CHECK(sl_redundancy_panel_f32(unit, N, D, sl_redundancy_panels(N), best, nearest, 1) == SL_ERR_ARG);
    CHECK(sl_redundancy_finish_f32(x, 2, D, index_of, 3, nearest, value[0], partner[0], 1) == SL_ERR_ARG);
    CHECK(sl_top_labels_f32(x, 1, D, unit, index_of, 1, 0, labels[0], scores[0], 1) == SL_ERR_ARG);
    CHECK(sl_cosine_f32(x, 0, x, 0, D, matrix, 1) == SL_OK);
    CHECK(sl_redundancy_panels(0) == 0);
    for (int after = 1; after < 8; after++) {
        sl_alloc_fail_after(after);
        CHECK(sl_cosine_f32(x, 2, x, 2, D, matrix, 1) == SL_ERR_NOMEM);
        sl_alloc_fail_after(after > 2 ? 1 : after);
        CHECK(sl_redundancy_panel_f32(unit, N, D, 0, best, nearest, 1) == SL_ERR_NOMEM);
    }
    sl_alloc_fail_after(1);
    CHECK(sl_unit_rows_f32(x, 2, D, unit, index_of, &found, 1) == SL_ERR_NOMEM);
    CHECK(sl_top_labels_f32(x, 1, D, unit, index_of, 1, 1, labels[0], scores[0], 1) == SL_ERR_NOMEM);
    sl_alloc_fail_after(-1);
}

int
main(void)
{
    fill();
    whole_matrix_agrees();
    labels_agree();
    refused();
    return CHECK_DONE();
}
