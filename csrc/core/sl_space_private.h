/* The search tree behind sl_knn.c and sl_mst.c. */
#ifndef SL_SPACE_PRIVATE_H
#define SL_SPACE_PRIVATE_H

#include "sl/sl_hdbscan.h"
#include "sl_tier.h"

enum { SL_SPACE_DEPTH = 64 }; /* more levels than 2^31 points can have, and one waiting node per level */

typedef struct {
    int32_t left, right; /* children, or -1 */
    int32_t first, last; /* blocks [first, last) */
    int32_t least;       /* lowest index of a point inside */
} sl_space_node;

struct sl_space {
    ptrdiff_t n, d, blocks, nodes;
    int32_t *order;      /* (blocks * 16) index of the point at each place, -1 past n */
    double *points;      /* (blocks, d, 16), inf past n */
    double *boxes;       /* (nodes, d, 2) */
    sl_space_node *node; /* children come after their parent */
};

/* A node that waits for its visit, with its distance to each of the 16 queries. */
typedef struct {
    int32_t node;
    double squared[SL_SPACE_BLOCK];
} sl_space_visit;

static inline ptrdiff_t
sl_space_min(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}

/* The k nearest points of `count` <= 16 queries in block form (d, 16); lists (count, k) as in sl_space_nearest, k <= n.  Serial. */
void sl_space_search(const sl_space *space, const double *block, ptrdiff_t count, ptrdiff_t k, int32_t *index,
                     double *squared);

static inline const double *
sl_space_block(const sl_space *s, ptrdiff_t b)
{
    return s->points + b * s->d * SL_SPACE_BLOCK;
}

#endif
