/* What every kernel shares: status codes, checked sizes, checked allocation.  No Python, no state, no printing. */
#ifndef SL_COMMON_H
#define SL_COMMON_H

#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "semanticlens must not be built with fast-math: NaN handling is part of its contracts"
#endif

typedef enum {
    SL_OK = 0,
    SL_ERR_ARG = -1,      /* an argument breaks the contract */
    SL_ERR_NOMEM = -2,    /* allocation failed */
    SL_ERR_OVERFLOW = -3, /* a product of sizes does not fit */
    SL_ERR_NUMERIC = -4,  /* the result is undefined for these numbers */
} sl_status;

/* *out = a * b; returns 0, or -1 (and leaves *out alone) if a factor is negative or the product does not fit. */
int sl_mul(ptrdiff_t a, ptrdiff_t b, ptrdiff_t *out);

/* 64-byte aligned memory for n items of `size` bytes; at least 64 bytes, so that NULL always means failure
 * (the product overflows, n < 0, or memory is out).  Release with sl_free(). */
void *sl_alloc(ptrdiff_t n, size_t size);
void sl_free(void *p);

/* Seconds of the wall clock, for kernels that measure the machine. */
double sl_now(void);

/* Fault injection for tests/c: the `after`-th next sl_alloc fails (1 = the very next), as do all that follow; negative switches it off.
 * Compiled only with -DSL_TESTING. */
#ifdef SL_TESTING
void sl_alloc_fail_after(long after);
#endif

#endif
