#include "sl/sl_common.h"

#include <stdlib.h>
#include <time.h>

#ifdef SL_TESTING
static long fail_after = -1;

void
sl_alloc_fail_after(long after)
{
    fail_after = after;
}

static int
must_fail(void)
{
    if (fail_after < 0) {
        return 0;
    }
    if (fail_after > 0) {
        fail_after--;
    }
    return fail_after == 0;
}
#else
static int
must_fail(void)
{
    return 0;
}
#endif

int
sl_mul(ptrdiff_t a, ptrdiff_t b, ptrdiff_t *out)
{
    ptrdiff_t product;

    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) {
        return -1;
    }
    *out = product;
    return 0;
}

void *
sl_alloc(ptrdiff_t n, size_t size)
{
    size_t bytes;

    if (must_fail() || n < 0 || __builtin_mul_overflow((size_t)n, size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)63, &bytes) || bytes > (size_t)PTRDIFF_MAX) {
        return NULL;
    }
    bytes &= ~(size_t)63;
    return aligned_alloc(64, bytes > 0 ? bytes : 64);
}

void
sl_free(void *p)
{
    free(p);
}

double
sl_now(void)
{
    struct timespec t;

    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
