/* Contracts of sl_common.h and sl_cpu.h. */
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

static void
products(void)
{
    ptrdiff_t out = 7;

    CHECK(sl_mul(6, 7, &out) == 0 && out == 42);
    CHECK(sl_mul(0, PTRDIFF_MAX, &out) == 0 && out == 0);
    CHECK(sl_mul(1, PTRDIFF_MAX, &out) == 0 && out == PTRDIFF_MAX);
    out = 7;
    CHECK(sl_mul(-1, 3, &out) == -1 && out == 7);
    CHECK(sl_mul(3, -1, &out) == -1 && out == 7);
    CHECK(sl_mul(-1, -1, &out) == -1 && out == 7);
    CHECK(sl_mul(PTRDIFF_MAX / 2 + 1, 2, &out) == -1 && out == 7);
}

static void
allocation(void)
{
    const ptrdiff_t sizes[] = {0, 1, 15, 16, 17, 1000};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = sl_alloc(sizes[i], sizeof(float));

        CHECK(p != NULL);
        CHECK(((uintptr_t)p & 63) == 0);
        if (p != NULL) {
            memset(p, 1, (size_t)sizes[i] * sizeof(float) > 64 ? (size_t)sizes[i] * sizeof(float) : 64);
        }
        sl_free(p);
    }
    CHECK(sl_alloc(-1, 1) == NULL);
    CHECK(sl_alloc(PTRDIFF_MAX, 4) == NULL);
    CHECK(sl_alloc(PTRDIFF_MAX, 1) == NULL); /* rounding up does not fit */
    sl_free(NULL);
}

static void
injected_failures(void)
{
    void *first, *second;

    sl_alloc_fail_after(2);
    first = sl_alloc(1, 1);
    second = sl_alloc(1, 1);
    CHECK(first != NULL && second == NULL);
    CHECK(sl_alloc(1, 1) == NULL); /* and all that follow */
    sl_alloc_fail_after(-1);
    sl_free(first);
    first = sl_alloc(1, 1);
    CHECK(first != NULL);
    sl_free(first);
}

static void
tiers(void)
{
    const char *const *names = sl_tier_names();
    const char *before = sl_tier_active();

    CHECK(names[0] != NULL && strcmp(names[0], "baseline") == 0);
    CHECK(sl_tier_supported("baseline"));
    CHECK(!sl_tier_supported("no-such-tier") && !sl_tier_supported(""));
    CHECK(sl_tier_select("no-such-tier") == SL_ERR_ARG);
    CHECK(sl_tier_active() == before);
    for (; *names != NULL; names++) {
        const sl_status status = sl_tier_select(*names);

        CHECK(status == (sl_tier_supported(*names) ? SL_OK : SL_ERR_ARG));
        CHECK(status != SL_OK || strcmp(sl_tier_active(), *names) == 0);
    }
    CHECK(sl_tier_select(NULL) == SL_OK);
    CHECK(sl_tier_supported(sl_tier_active()));
    CHECK(sl_tier_select(before) == SL_OK);
}

static void
threads_of_a_forked_child(void)
{
    int status = -1;
    pid_t child;

    CHECK(sl_threads(1) == 1 && sl_threads(8) == 8);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        _exit(sl_threads(8)); /* no clean-up of the parent's state */
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == (sl_has_openmp() ? 1 : 8));
    CHECK(sl_threads(8) == 8); /* the parent is untouched */
}

int
main(void)
{
    products();
    allocation();
    injected_failures();
    tiers();
    threads_of_a_forked_child();
    return CHECK_DONE();
}
