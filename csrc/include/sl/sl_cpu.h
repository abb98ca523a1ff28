/* Which instruction-set tier runs, and how many threads may. */
#ifndef SL_CPU_H
#define SL_CPU_H

#include "sl_common.h"

/* Names of the tiers compiled into this build, best last, NULL-terminated: "baseline", then "avx2", "avx512" on x86-64, "neon" on aarch64. */
const char *const *sl_tier_names(void);

/* Names of the tiers that are used only when they are asked for by name: on x86-64 "amx" and "amx3" (six and three tile products, sl_split.h), and
 * everywhere "amx-emulated" and "amx3-emulated", the same kernels on tile operations in C, which only builds for tests have. */
const char *const *sl_tier_by_name(void);

/* Why this machine or build cannot run the tier, as a clause, or NULL if it can. */
const char *sl_tier_fault(const char *name);

/* 1 if this machine can run the tier, 0 if it cannot or no such tier was compiled. */
int sl_tier_supported(const char *name);

/* Makes `name` the tier of all later calls, NULL the best one of sl_tier_names() that this machine supports.  Nothing changes on an error: SL_ERR_ARG if
 * it is unknown or unsupported (sl_tier_fault says why); SL_ERR_NUMERIC if the kernel refuses this process the tile registers, or a product of whole
 * numbers on them comes out wrong.  Not meant to be called while kernels run: the module does it once, at import. */
sl_status sl_tier_select(const char *name);

/* Name of the active tier. */
const char *sl_tier_active(void);

/* `wanted` threads, or 1 in a process forked after this library was loaded: a parallel region of GCC's OpenMP run-time hangs there. */
int sl_threads(int wanted);

/* Number of the calling thread inside a parallel region, 0 outside. */
int sl_thread_index(void);

/* 1 if built with OpenMP. */
int sl_has_openmp(void);

#endif
