/* Streaming selection: the m largest values per component with their ids, and the c largest per class.
 * Source: SemanticLens (Nature Machine Intelligence 2025), concept examples by activation maximisation; class statistics of Concept Relevance
 * Propagation.
 *
 * One order everywhere: larger score first, equal scores (0.0 equals -0.0) by the smaller id.  Never kept: NaN (it is counted), -inf ("no
 * score"), and with positive_only whatever is not above 0.  +inf is kept.  What is kept depends only on what was offered, not on batches, their
 * order, or n_threads. */
#ifndef SL_TOPM_H
#define SL_TOPM_H

#include "sl_common.h"

/* Candidates that a component collects before they are merged into its list.  Measured best between 32 and 128 for m from 20 to 100. */
enum { SL_TOPM_PENDING = 64 };

typedef struct {
    int64_t id;
    float score;
    int32_t unused;
} sl_candidate;

/* The running state of K components; the caller owns every array, and none may overlap another or an input.
 *
 * Between calls, of component k:  list row k of scores and ids holds counts[k] entries, in the order above after sl_topm_flush() and in none
 * before, then score -inf and id -1; limits[k], limit_ids[k] are the last of a full list in that order, else -inf (0 with positive_only) and -1:
 * what does not come before it cannot enter.  Pending row k holds pending_counts[k] candidates that passed the limit but are not in the list yet;
 * after sl_topm_flush() there are none.
 * Lists are read only when candidates are merged, limits on every value, so they are arrays of their own. */
typedef struct {
    ptrdiff_t K, m;
    int positive_only;
    float *scores;           /* (K, m) */
    int64_t *ids;            /* (K, m) */
    int64_t *counts;         /* (K) */
    int64_t *nan_counts;     /* (K) */
    float *limits;           /* (K) */
    int64_t *limit_ids;      /* (K) */
    sl_candidate *pending;   /* (K, SL_TOPM_PENDING) */
    int32_t *pending_counts; /* (K) */
} sl_topm;

/* Sets every array of the state (but pending) to the empty state.  SL_ERR_ARG: K < 0, m < 1. */
sl_status sl_topm_init(const sl_topm *state);

/* Offers values[i, k] as the score of sample ids[i] to component k, for all i < B, k < K.
 *
 * values (B, K), ids (B), both read only; ids not negative, and distinct over the life of the state: the caller sees to that, a sample that is
 * offered twice is kept twice.
 *
 * One compare per value against the limits, vectorised over k; expected work beyond that is about m ln(N / m) merged candidates per component
 * for N exchangeable samples.  Components are divided among the threads; allocates nothing.
 * SL_ERR_ARG, and nothing is changed: a negative size or id, m < 1, n_threads < 1. */
sl_status sl_topm_update_f32(const sl_topm *state, const float *values, const int64_t *ids, ptrdiff_t B, int n_threads);

/* Merges all pending candidates and sorts: afterwards scores, ids and counts are the result so far.  SL_ERR_ARG as above. */
sl_status sl_topm_flush(const sl_topm *state, int n_threads);

/* Offers the lists of another state over the same components, scores (K, n) with ids (K, n), id -1 meaning none, and flushes: the state becomes
 * that of a single run over both inputs, which must have no sample in common.  Any order within a row.  SL_ERR_ARG as above, or n < 0. */
sl_status sl_topm_merge_f32(const sl_topm *state, const float *scores, const int64_t *ids, ptrdiff_t n, int n_threads);

/* best[y, k] = the c largest of the values[i, k] with targets[i] == y seen so far, descending, -inf where there are fewer.
 *
 * best (Y, K, c) updated in place, filled with -inf at the start; values (B, K); targets (B), -1 for none.  Left out: NaN, -inf, and with
 * positive_only what is not above 0.  Bitwise equal for every n_threads; allocates nothing.
 * SL_ERR_ARG, and nothing is changed: a negative size, c < 1, a target outside [-1, Y), n_threads < 1. */
sl_status sl_class_top_f32(float *best, ptrdiff_t Y, ptrdiff_t K, ptrdiff_t c, const float *values,
                           const int64_t *targets, ptrdiff_t B, int positive_only, int n_threads);

#endif
