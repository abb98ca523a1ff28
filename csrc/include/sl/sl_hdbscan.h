/* Density clustering: exact neighbours, the minimum spanning tree of mutual reachability, the condensed tree and what is read off it.
 *
 * Campello, Moulavi, Sander, "Density-based clustering based on hierarchical density estimates" (2013); the condensed tree has the row order
 * of the hdbscan package.  All numbers are double and all distances Euclidean.  A squared distance is the sum of squared differences in
 * ascending order of the coordinates, never fused: the same bits in every tier, for (i, j) and (j, i), and for every number of threads. */
#ifndef SL_HDBSCAN_H
#define SL_HDBSCAN_H

#include "sl_common.h"

/* A search tree over n points: blocks of 16 neighbours with their bounding boxes, built by halving along the widest side. */
typedef struct sl_space sl_space;

/* Copies x (n, d).  SL_ERR_ARG: n < 1, d < 1, n > INT32_MAX - 16; SL_ERR_NUMERIC: x is not finite; SL_ERR_OVERFLOW; SL_ERR_NOMEM.
 * *space is NULL after an error.  O(n d log n), 2 n d doubles. */
sl_status sl_space_new(const double *x, ptrdiff_t n, ptrdiff_t d, sl_space **space);
void sl_space_free(sl_space *space);

/* The k nearest points of rows [begin, end) of the queries z (m, d), nearest first, equal distances by the lower index; a query that is a
 * point of the space finds itself.  index and squared (m, k).  NaN in z: SL_ERR_NUMERIC.  SL_ERR_ARG: k < 1 or k > n, a bad range. */
sl_status sl_space_nearest(const sl_space *space, const double *z, ptrdiff_t m, ptrdiff_t k, ptrdiff_t begin,
                           ptrdiff_t end, int32_t *index, double *squared, int n_threads);

/* Minimum spanning tree of w(i, j) = max(core(i), core(j), |x_i - x_j|), core(i) = distance to the min_samples-th other point (0 if
 * min_samples is 0).  It is the one tree of least total weight when edges are ordered by (w^2, lower index, higher index), so ties are settled
 * by the data's order alone.  Boruvka's method over the search tree; never more than O(n (d + min_samples)) memory.
 *
 *   sl_mst_new, then sl_mst_step until it sets *done, then sl_mst_read.
 *
 * A step is a part of the work after which the caller may look around; it may give up with sl_mst_free at any time.
 * SL_ERR_ARG: min_samples < 0 or >= n. */
typedef struct sl_mst sl_mst;
sl_status sl_mst_new(const sl_space *space, ptrdiff_t min_samples, sl_mst **mst);
sl_status sl_mst_step(sl_mst *mst, int n_threads, int *done);
void sl_mst_free(sl_mst *mst);

/* low, high (n - 1): the ends, low < high; weight (n - 1) ascending in the order above; core (n) in the order of x.  SL_ERR_ARG before the end. */
sl_status sl_mst_read(const sl_mst *mst, int64_t *low, int64_t *high, double *weight, double *core);

/* Merges in the order of the edges.  Row t joins clusters left[t] (of low[t]) and right[t] (of high[t]) into n + t of size[t] points.
 * SL_ERR_ARG unless the n - 1 edges are a tree over n points. */
sl_status sl_single_linkage(const int64_t *low, const int64_t *high, ptrdiff_t n, int64_t *left, int64_t *right,
                            int64_t *size);

/* Condensed tree of a dendrogram; rows (parent, child, lambda, size) are at most 2 n.  lambda = 1 / height, inf for height 0.  Clusters are
 * numbered from n in breadth-first order; at a split with one large side the large one keeps its name and the points of the other fall out,
 * breadth first.  SL_ERR_ARG: min_size < 2, n < 2, or rows that are no dendrogram. */
sl_status sl_condense(const int64_t *left, const int64_t *right, const double *height, const int64_t *size, ptrdiff_t n,
                      ptrdiff_t min_size, int64_t *parent, int64_t *child, double *lambda, int64_t *child_size,
                      ptrdiff_t *rows);

/* A condensed tree by node: node t is cluster n + t, node 0 the root. */
typedef struct {
    ptrdiff_t n, T;
    int64_t *up;          /* (T) parent node, of the root itself */
    double *birth;        /* (T) lambda at which it splits off, 0 for the root */
    double *lmax;         /* (T) largest lambda of its rows */
    double *stability;    /* (T) sum of (lambda - birth) size over its rows */
    int64_t *point_node;  /* (n) node a point falls out of */
    double *point_lambda; /* (n) when */
} sl_tree;

/* Fills all arrays of `tree` (n and T are given) from the four columns; the rows may come in any order and from any implementation.
 * SL_ERR_ARG: a node that is not younger than its parent or has none, a point that falls out twice or never, lambda NaN or negative. */
sl_status sl_tree_fill(const int64_t *parent, const int64_t *child, const double *lambda, const int64_t *child_size,
                       ptrdiff_t rows, const sl_tree *tree);

typedef enum { SL_SELECT_LEAF = 0, SL_SELECT_EOM = 1 } sl_selection;

/* selected (T): 1 for the nodes that become clusters, never the root.  leaf: nodes without child nodes.  eom: a node wins over its
 * descendants unless the sum of their best stabilities is larger.  epsilon > 0: a selected node born at a distance below epsilon is replaced by
 * its nearest ancestor born above it, or the last one below the root. */
sl_status sl_tree_select(const sl_tree *tree, sl_selection method, double epsilon, uint8_t *selected);

/* concept_of (T): number, in ascending node order, of the selected node at or above, or -1.  labels (n) the same of each point's node;
 * strength (n) = min(lambda, lmax(s)) / lmax(s), 1 where lambda is inf or lmax 0, 0 for noise.  exemplar (n): 1 for a point of a childless node
 * at or below a selected one that falls out at that node's lmax.  Any output may be NULL but concept_of. */
sl_status sl_tree_labels(const sl_tree *tree, const uint8_t *selected, int64_t *concept_of, int64_t *labels,
                         double *strength, uint8_t *exemplar);

/* height (T, K): lambda at which node c and the k-th selected node s part; NaN where one lies at or above the other. */
sl_status sl_tree_heights(const sl_tree *tree, const uint8_t *selected, ptrdiff_t K, double *height);

#endif
