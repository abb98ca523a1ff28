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

/* A node that waits for its visit, with a lower bound of the squared distance of each of the 16 queries to what is inside, and those (bits) that could gain. */
typedef struct {
    int32_t node;
    unsigned lanes;
    double squared[SL_SPACE_BLOCK];
} sl_space_visit;

/* Up to 16 queries on their way down the tree, the first member of what the callbacks are told. */
typedef struct sl_space_walk {
    const sl_space *space;
    const sl_tier *tier;
    const double *block;          /* (d, 16) the queries */
    double floor[SL_SPACE_BLOCK]; /* nothing is nearer to the query than this, whatever the distance */
    double
        bound[SL_SPACE_BLOCK]; /* the query has no use for what is farther, -1 for none at all; may fall on the way */
    const double *least;       /* by node: nothing inside is nearer than this to anything, or NULL */
    /* Those of the lanes, all of them within their bound, that could gain from the node. */
    unsigned (*screen)(const struct sl_space_walk *walk, const sl_space_visit *visit, unsigned lanes);
    /* Query l meets the points of a block. */
    void (*scan)(struct sl_space_walk *walk, ptrdiff_t block, int l);
} sl_space_walk;

/* Visits, nearest first, every leaf from which a query could gain. */
void sl_space_descend(sl_space_walk *walk);

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
