/* Tier choice and thread count.  Contract: sl_cpu.h.  The two atomics below are the only mutable state of the core. */
#include "sl/sl_cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "sl_tier.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static _Atomic(const sl_tier *) active = NULL;
static atomic_int forked = 0;

static const sl_tier *const tiers[] = {
    &sl_tier_baseline,
#if defined(__x86_64__)
    &sl_tier_avx2,
    &sl_tier_avx512,
#elif defined(__aarch64__)
    &sl_tier_neon,
#endif
};
enum { N_TIERS = sizeof tiers / sizeof *tiers };

static int
runs_here(const sl_tier *tier)
{
#if defined(__x86_64__)
    if (tier == &sl_tier_avx2) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    if (tier == &sl_tier_avx512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
    }
#endif
    return tier != NULL;
}

static const sl_tier *
find(const char *name)
{
    for (int i = 0; i < N_TIERS; i++) {
        if (strcmp(tiers[i]->name, name) == 0) {
            return tiers[i];
        }
    }
    return NULL;
}

static const sl_tier *
best(void)
{
    int i = N_TIERS - 1;

    while (i > 0 && !runs_here(tiers[i])) {
        i--;
    }
    return tiers[i];
}

const char *const *
sl_tier_names(void)
{
    static const char *const names[] = {
        "baseline",
#if defined(__x86_64__)
        "avx2",
        "avx512",
#elif defined(__aarch64__)
        "neon",
#endif
        NULL,
    };
    return names;
}

int
sl_tier_supported(const char *name)
{
    const sl_tier *tier = find(name);

    return tier != NULL && runs_here(tier);
}

sl_status
sl_tier_select(const char *name)
{
    const sl_tier *tier = name != NULL ? find(name) : best();

    if (tier == NULL || !runs_here(tier)) {
        return SL_ERR_ARG;
    }
    atomic_store(&active, tier);
    return SL_OK;
}

const sl_tier *
sl_tier_get(void)
{
    const sl_tier *tier = atomic_load_explicit(&active, memory_order_relaxed);

    if (tier == NULL) { /* C programs need no set-up call; racing threads store the same pointer */
        tier = best();
        atomic_store(&active, tier);
    }
    return tier;
}

const char *
sl_tier_active(void)
{
    return sl_tier_get()->name;
}

#ifdef _OPENMP
static void
mark_forked(void)
{
    atomic_store(&forked, 1);
}

__attribute__((constructor)) static void
watch_for_forks(void)
{
    pthread_atfork(NULL, NULL, mark_forked);
}
#endif

int
sl_threads(int wanted)
{
    return atomic_load_explicit(&forked, memory_order_relaxed) ? 1 : wanted;
}

int
sl_thread_index(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

int
sl_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
