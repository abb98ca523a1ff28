/* The contract of sl_gemm.h, without Python; run plain, under address+undefined sanitizers and under valgrind. */
#include "check.h"
#include "sl/sl_cpu.h"
#include "sl/sl_gemm.h"

#include <stdlib.h>
#include <string.h>

static float *
filled(ptrdiff_t n, unsigned seed)
{
    float *x = sl_alloc(n, sizeof *x);

    for (ptrdiff_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0F - 1.0F;
    }
    return x;
}

/* The product is within k roundings of the double sum, and touches neither gaps between rows nor the inputs. */
static void
serial_product(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k)
{
    const ptrdiff_t lda = k + 3, ldb = k + 1, ldc = n + 2;
    float *a = filled(m * lda, 1), *b = filled(n * ldb, 2), *c = filled(m * ldc, 3), *before = filled(m * ldc, 3);
    float *work = sl_alloc(sl_gemm_nt_worksize(m, n, k), sizeof *work);
    int wrong = 0, touched = 0;

    sl_gemm_nt_serial_f32(a, lda, m, b, ldb, n, k, c, ldc, work);
    for (ptrdiff_t i = 0; i < m; i++) {
        for (ptrdiff_t j = 0; j < n; j++) {
            double sum = 0.0, size = 0.0;
            for (ptrdiff_t p = 0; p < k; p++) {
                const double t = (double)a[i * lda + p] * (double)b[j * ldb + p];
                sum += t;
                size += fabs(t);
            }
            wrong += !(fabs((double)c[i * ldc + j] - sum) <= 1e-6 * size * sqrt((double)k + 1.0));
        }
        touched += memcmp(c + i * ldc + n, before + i * ldc + n, (size_t)(i + 1 < m ? ldc - n : 0) * sizeof *c) != 0;
    }
    CHECK(wrong == 0);
    CHECK(touched == 0);
    sl_free(work);
    sl_free(before);
    sl_free(c);
    sl_free(b);
    sl_free(a);
}

static void
serial_products(void)
{
    static const ptrdiff_t sizes[] = {1, 2, 5, 6, 7, 8, 15, 16, 17, 31, 33, 49};
    enum { COUNT = sizeof sizes / sizeof *sizes };

    for (int i = 0; i < COUNT; i++) {
        for (int j = 0; j < COUNT; j++) {
            serial_product(sizes[i], sizes[j], sizes[(i + j) % COUNT]);
        }
        serial_product(sizes[i], 19, SL_GEMM_KC + sizes[i] - 8);
    }
    serial_product(260, 70, 2 * SL_GEMM_KC + 1);
    serial_product(3, 4, 0);
    serial_product(0, 4, 3);
    serial_product(4, 0, 3);
}

/* An element depends on its own row of A and row of B only. */
static void
independent_of_the_cut(void)
{
    const ptrdiff_t m = 29, n = 37, k = 700;
    float *a = filled(m * k, 4), *b = filled(n * k, 5), *whole = filled(m * n, 6), one = 0.0F;
    float *work = sl_alloc(sl_gemm_nt_worksize(m, n, k), sizeof *work);
    int differ = 0;

    sl_gemm_nt_serial_f32(a, k, m, b, k, n, k, whole, n, work);
    for (ptrdiff_t i = 0; i < m; i++) {
        for (ptrdiff_t j = 0; j < n; j++) {
            sl_gemm_nt_serial_f32(a + i * k, k, 1, b + j * k, k, 1, k, &one, 1, work);
            differ += memcmp(&one, whole + i * n + j, sizeof one) != 0;
        }
    }
    CHECK(differ == 0);
    sl_free(work);
    sl_free(whole);
    sl_free(b);
    sl_free(a);
}

int
main(void)
{
    for (const char *const *tier = sl_tier_names(); *tier != NULL; tier++) {
        if (sl_tier_supported(*tier)) {
            CHECK(sl_tier_select(*tier) == SL_OK);
            serial_products();
            independent_of_the_cut();
        }
    }
    return CHECK_DONE();
}
