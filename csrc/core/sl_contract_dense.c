/* The contractions of dense layers, and batched products.  Contract: sl_contract.h. */
#include "sl/sl_contract.h"
#include "sl_gemm_private.h"

/* The product of two sizes fits, in bytes too. */
static int
fits(ptrdiff_t a, ptrdiff_t b)
{
    ptrdiff_t n = 0;

    return sl_mul(a, b, &n) == 0 && sl_mul(n, 2 * (ptrdiff_t)sizeof(float), &n) == 0;
}

static sl_status
check_sizes(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, int n_threads)
{
    if (m < 0 || n < 0 || k < 0 || n_threads < 1) {
        return SL_ERR_ARG;
    }
    return fits(m, k) && fits(n, k) && fits(m, n) ? SL_OK : SL_ERR_OVERFLOW;
}

/* The product of one matrix with another: sizes, variants (of b), part (of a) and finish are looked at first. */
static sl_status
run_checked(const sl_product *p, int n_threads)
{
    const sl_status status = check_sizes(p->m, p->n, p->k, n_threads);

    if (status != SL_OK) {
        return status;
    }
    if (!sl_variant_valid(p->b.variant, 0) || !sl_variant_valid(p->a.variant, 1) || !sl_finish_valid(p->finish)) {
        return SL_ERR_ARG;
    }
    return sl_product_run(p, n_threads);
}

sl_status
sl_dense_forward_f32(const float *x, ptrdiff_t m, ptrdiff_t k, const float *w, ptrdiff_t n, sl_variant variant,
                     sl_variant part, const float *bias, const sl_finish *finish, float *z, int n_threads)
{
    const sl_product p = {.outer = 1,
                          .inner = 1,
                          .m = m,
                          .n = n,
                          .k = k,
                          .a = {.data = x, .ld = k, .along_k = 1, .variant = part},
                          .b = {.data = w, .ld = k, .along_k = 1, .variant = variant},
                          .c = z,
                          .ldc = n,
                          .bias = bias,
                          .finish = finish,
                          .scale = 1.0F};

    return run_checked(&p, n_threads);
}

sl_status
sl_dense_adjoint_f32(const float *s, ptrdiff_t m, ptrdiff_t n, const float *w, ptrdiff_t k, sl_variant variant,
                     sl_variant part, const sl_finish *finish, float *g, int n_threads)
{
    const sl_product p = {.outer = 1,
                          .inner = 1,
                          .m = m,
                          .n = k,
                          .k = n,
                          .a = {.data = s, .ld = n, .along_k = 1, .variant = part},
                          .b = {.data = w, .ld = k, .along_k = 0, .variant = variant},
                          .c = g,
                          .ldc = k,
                          .finish = finish,
                          .scale = 1.0F};

    return run_checked(&p, n_threads);
}

sl_status
sl_dense_parameter_f32(const float *s, ptrdiff_t m, ptrdiff_t n, const float *x, ptrdiff_t k, float *f, int n_threads)
{
    const sl_product p = {.outer = 1,
                          .inner = 1,
                          .m = n,
                          .n = k,
                          .k = m,
                          .a = {.data = s, .ld = n, .along_k = 0},
                          .b = {.data = x, .ld = k, .along_k = 0},
                          .c = f,
                          .ldc = k,
                          .scale = 1.0F};
    const sl_status status = check_sizes(m, n, k, n_threads);

    return status == SL_OK ? sl_product_run(&p, n_threads) : status;
}

sl_status
sl_matmul_f32(ptrdiff_t outer, ptrdiff_t inner, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
              sl_strides a_strides, const float *b, sl_strides b_strides, float scale, float *c, sl_strides c_strides,
              int n_threads)
{
    const sl_product p = {
        .outer = outer,
        .inner = inner,
        .m = m,
        .n = n,
        .k = k,
        .a = {.data = a,
              .outer = a_strides.outer,
              .inner = a_strides.inner,
              .ld = a_strides.row,
              .along_k = !a_strides.transposed},
        .b = {.data = b,
              .outer = b_strides.outer,
              .inner = b_strides.inner,
              .ld = b_strides.row,
              .along_k = b_strides.transposed},
        .c = c,
        .c_outer = c_strides.outer,
        .c_inner = c_strides.inner,
        .ldc = c_strides.row,
        .scale = scale,
    };
    const sl_status status = check_sizes(m, n, k, n_threads);

    if (status != SL_OK) {
        return status;
    }
    if (outer < 0 || inner < 0 || c_strides.transposed) {
        return SL_ERR_ARG;
    }
    return fits(outer, inner) ? sl_product_run(&p, n_threads) : SL_ERR_OVERFLOW;
}
