/* Tier choice and thread count.  Contract: sl_cpu.h.  The two atomics below are the only mutable state of the core.
 *
 * A tier is a set of loops, and perhaps of tile kernels for large products.  Those with tiles are chosen by name only. */
#include "sl/sl_cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "sl_split_private.h"
#include "sl_tier.h"

#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    const char *name;
    const sl_tier *loops;
    const sl_tiles *tiles; /* or NULL */
} choice;

static const choice choices[] = {
    {"baseline", &sl_tier_baseline, NULL},
#if defined(__x86_64__)
    {"avx2", &sl_tier_avx2, NULL},
    {"avx512", &sl_tier_avx512, NULL},
#elif defined(__aarch64__)
    {"neon", &sl_tier_neon, NULL},
#endif
};

static const choice named[] = {
#if defined(__x86_64__)
    {"amx", &sl_tier_avx512, &sl_tiles_amx[0]},
    {"amx3", &sl_tier_avx512, &sl_tiles_amx[1]},
    {"amx-emulated", &sl_tier_avx2, &sl_tiles_emulated[0]},
    {"amx3-emulated", &sl_tier_avx2, &sl_tiles_emulated[1]},
#elif defined(__aarch64__)
    {"amx-emulated", &sl_tier_neon, &sl_tiles_emulated[0]},
    {"amx3-emulated", &sl_tier_neon, &sl_tiles_emulated[1]},
#else
    {"amx-emulated", &sl_tier_baseline, &sl_tiles_emulated[0]},
    {"amx3-emulated", &sl_tier_baseline, &sl_tiles_emulated[1]},
#endif
};
enum { N_CHOICES = sizeof choices / sizeof *choices, N_NAMED = sizeof named / sizeof *named };

static _Atomic(const choice *) active = NULL;
static atomic_int forked = 0;

static int
loops_run_here(const sl_tier *tier)
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

static const char *
fault_of(const choice *c)
{
    if (c->tiles != NULL && c->tiles->fault != NULL) {
        return c->tiles->fault;
    }
    if (c->tiles == &sl_tiles_amx[0] || c->tiles == &sl_tiles_amx[1]) {
        const char *fault = sl_amx_fault();
        if (fault != NULL) {
            return fault;
        }
    }
    return loops_run_here(c->loops) ? NULL : "the processor lacks its vector instructions";
}

static const choice *
find(const char *name)
{
    for (int i = 0; i < N_CHOICES; i++) {
        if (strcmp(choices[i].name, name) == 0) {
            return &choices[i];
        }
    }
    for (int i = 0; i < N_NAMED; i++) {
        if (strcmp(named[i].name, name) == 0) {
            return &named[i];
        }
    }
    return NULL;
}

static const choice *
best(void)
{
    int i = N_CHOICES - 1;

    while (i > 0 && fault_of(&choices[i]) != NULL) {
        i--;
    }
    return &choices[i];
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

const char *const *
sl_tier_by_name(void)
{
    static const char *const names[] = {
#if defined(__x86_64__)
        "amx",          "amx3",
#endif
        "amx-emulated", "amx3-emulated", NULL,
    };
    return names;
}

const char *
sl_tier_fault(const char *name)
{
    const choice *c = find(name);

    return c == NULL ? "this build has no such tier" : fault_of(c);
}

int
sl_tier_supported(const char *name)
{
    return sl_tier_fault(name) == NULL;
}

sl_status
sl_tier_select(const char *name)
{
    const choice *c = name != NULL ? find(name) : best();

    if (c == NULL || fault_of(c) != NULL) {
        return SL_ERR_ARG;
    }
    if (c->tiles == &sl_tiles_amx[0] || c->tiles == &sl_tiles_amx[1]) {
        if (sl_amx_permit() != NULL || !c->tiles->proves(c->tiles)) {
            return SL_ERR_NUMERIC;
        }
    }
    atomic_store(&active, c);
    return SL_OK;
}

static const choice *
chosen(void)
{
    const choice *c = atomic_load_explicit(&active, memory_order_relaxed);

    if (c == NULL) { /* C programs need no set-up call; racing threads store the same pointer */
        c = best();
        atomic_store(&active, c);
    }
    return c;
}

const sl_tier *
sl_tier_get(void)
{
    return chosen()->loops;
}

const sl_tiles *
sl_tiles_get(void)
{
    return chosen()->tiles;
}

const char *
sl_tier_active(void)
{
    return chosen()->name;
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
