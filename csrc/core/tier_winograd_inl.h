/* Transforms of Winograd's F(2 x 2, 3 x 3); see sl_winograd.h. */

/* B^T d B of n tiles side by side.  patch: 4 rows at distance `pitch`, each split into even columns and, `odd` floats on, odd ones; tile j covers the even
 * and odd columns j and j + 1.  Result (u, v) of tile j goes to dst[(4 u + v) ld + j].  Whole vectors: up to SL_LANES floats behind what a row
 * needs are read, up to SL_LANES - 1 behind n are written. */
static void
tile_input(const float *patch, ptrdiff_t pitch, ptrdiff_t odd, ptrdiff_t n, float *dst, ptrdiff_t ld)
{
    for (ptrdiff_t j = 0; j < n; j += SL_LANES) {
        vf row[4][4];
        SL_UNROLL
        for (int v = 0; v < 4; v++) {
            const float *column = patch + j + (v & 1) * odd + (v >> 1);
            const vf a = v_load(column), b = v_load(column + pitch), c = v_load(column + 2 * pitch),
                     d = v_load(column + 3 * pitch);
            row[0][v] = a - c;
            row[1][v] = b + c;
            row[2][v] = c - b;
            row[3][v] = b - d;
        }
        SL_UNROLL
        for (int u = 0; u < 4; u++) {
            float *to = dst + 4 * u * ld + j;
            v_store(to, row[u][0] - row[u][2]);
            v_store(to + ld, row[u][1] + row[u][2]);
            v_store(to + 2 * ld, row[u][2] - row[u][1]);
            v_store(to + 3 * ld, row[u][1] - row[u][3]);
        }
    }
}

/* A^T m A + bias of n tiles side by side: value (u, v) of tile j from m[(4 u + v) ld + j]; outputs 2 j and 2 j + 1 of the tiles' two rows to top and
 * bottom.  Whole vectors are read and written. */
static void
tile_output(const float *m, ptrdiff_t ld, ptrdiff_t n, float bias, float *top, float *bottom)
{
    const vf add = v_all(bias);

    for (ptrdiff_t j = 0; j < n; j += SL_LANES) {
        vf upper[4], lower[4];
        SL_UNROLL
        for (int v = 0; v < 4; v++) {
            const float *from = m + v * ld + j;
            const vf a = v_load(from), b = v_load(from + 4 * ld), c = v_load(from + 8 * ld), d = v_load(from + 12 * ld);
            upper[v] = a + b + c;
            lower[v] = b - c - d;
        }
        const vf first = upper[0] + upper[1] + upper[2] + add, second = upper[1] - upper[2] - upper[3] + add,
                 third = lower[0] + lower[1] + lower[2] + add, fourth = lower[1] - lower[2] - lower[3] + add;
        v_store(top + 2 * j, SL_SHUFFLE(first, second, SL_INTERLEAVE_LOW));
        v_store(top + 2 * j + SL_LANES, SL_SHUFFLE(first, second, SL_INTERLEAVE_HIGH));
        v_store(bottom + 2 * j, SL_SHUFFLE(third, fourth, SL_INTERLEAVE_LOW));
        v_store(bottom + 2 * j + SL_LANES, SL_SHUFFLE(third, fourth, SL_INTERLEAVE_HIGH));
    }
}

/* G w G^T of k kernels for each of SL_MR rows: w [k][9][SL_MR], value (u, v) of kernel p and row i to dst[(4 u + v) ld + p SL_MR + i]. */
static void
tile_weights(const float *w, ptrdiff_t k, float *dst, ptrdiff_t ld)
{
    for (ptrdiff_t p = 0; p < k; p++, w += 9 * SL_MR, dst += SL_MR) {
        double down[4][3][SL_MR];
        for (int v = 0; v < 3; v++) {
            for (int i = 0; i < SL_MR; i++) {
                const double a = (double)w[v * SL_MR + i], b = (double)w[(3 + v) * SL_MR + i],
                             c = (double)w[(6 + v) * SL_MR + i];
                down[0][v][i] = a;
                down[1][v][i] = 0.5 * ((a + c) + b);
                down[2][v][i] = 0.5 * ((a + c) - b);
                down[3][v][i] = c;
            }
        }
        for (int u = 0; u < 4; u++) {
            float *to = dst + 4 * u * ld;
            for (int i = 0; i < SL_MR; i++) {
                const double a = down[u][0][i], b = down[u][1][i], c = down[u][2][i];
                to[i] = (float)a;
                to[ld + i] = (float)(0.5 * ((a + c) + b));
                to[2 * ld + i] = (float)(0.5 * ((a + c) - b));
                to[3 * ld + i] = (float)c;
            }
        }
    }
}
