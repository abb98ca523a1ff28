/* From the edges of a spanning tree to clusters.  Contract: sl_hdbscan.h.  Everything here is serial and close to linear. */
#include <math.h>
#include <string.h>

#include "sl/sl_hdbscan.h"

static int64_t
find(int64_t *above, int64_t p)
{
    while (above[p] != p) {
        p = above[p] = above[above[p]];
    }
    return p;
}

sl_status
sl_single_linkage(const int64_t *low, const int64_t *high, ptrdiff_t n, int64_t *left, int64_t *right, int64_t *size)
{
    sl_status status = SL_OK;
    int64_t *above, *name; /* union-find over the points, and the cluster each representative stands for */

    if (n < 1) {
        return SL_ERR_ARG;
    }
    above = sl_alloc(n, sizeof *above);
    name = sl_alloc(n, sizeof *name);
    if (above == NULL || name == NULL) {
        status = SL_ERR_NOMEM;
        goto done;
    }
    for (ptrdiff_t p = 0; p < n; p++) {
        above[p] = name[p] = p;
    }
    for (ptrdiff_t t = 0; t + 1 < n; t++) {
        if (low[t] < 0 || low[t] >= n || high[t] < 0 || high[t] >= n) {
            status = SL_ERR_ARG;
            goto done;
        }
        const int64_t a = find(above, low[t]), b = find(above, high[t]);
        if (a == b) {
            status = SL_ERR_ARG;
            goto done;
        }
        left[t] = name[a];
        right[t] = name[b];
        const int64_t of_left = left[t] < n ? 1 : size[left[t] - n], of_right = right[t] < n ? 1 : size[right[t] - n];
        const int64_t under = of_left < of_right ? a : b, over = of_left < of_right ? b : a;
        size[t] = of_left + of_right;
        above[under] = over;
        name[over] = n + t;
    }
done:
    sl_free(name);
    sl_free(above);
    return status;
}

/* A dendrogram and the condensed rows that grow out of it. */
typedef struct {
    const int64_t *left, *right, *size;
    ptrdiff_t n, rows;
    int64_t *parent, *child, *child_size;
    double *lambda;
    int64_t *queue; /* (n) of the breadth-first walks below a split */
} condensing;

static int64_t
size_of(const condensing *c, int64_t node)
{
    return node < c->n ? 1 : c->size[node - c->n];
}

static void
add_row(condensing *c, int64_t parent, int64_t child, double lambda, int64_t size)
{
    c->parent[c->rows] = parent;
    c->child[c->rows] = child;
    c->lambda[c->rows] = lambda;
    c->child_size[c->rows++] = size;
}

/* All points below `node`, breadth first. */
static void
fall_out(condensing *c, int64_t parent, int64_t node, double lambda)
{
    ptrdiff_t head = 0, tail = 0; /* of a ring: at most n nodes wait at a time */

    c->queue[tail++] = node;
    while (head < tail) {
        const int64_t at = c->queue[head++ % c->n];
        if (at < c->n) {
            add_row(c, parent, at, lambda, 1);
        } else {
            c->queue[tail++ % c->n] = c->left[at - c->n];
            c->queue[tail++ % c->n] = c->right[at - c->n];
        }
    }
}

/* Each node below the root is the child of one row that comes after its own; sizes add up. */
static int
is_dendrogram(const condensing *c, const double *height)
{
    ptrdiff_t total = 0;

    memset(c->queue, 0, (size_t)c->n * sizeof *c->queue); /* bit 0: point met, bit 1: merge met */
    for (ptrdiff_t t = 0; t + 1 < c->n; t++) {
        const int64_t side[2] = {c->left[t], c->right[t]};
        for (int k = 0; k < 2; k++) {
            if (side[k] < 0 || side[k] >= c->n + t) {
                return 0;
            }
            const int64_t bit = side[k] < c->n ? 1 : 2;
            int64_t *mark = &c->queue[side[k] < c->n ? side[k] : side[k] - c->n];
            if ((*mark & bit) != 0) {
                return 0;
            }
            *mark |= bit;
            total++;
        }
        if (c->size[t] != size_of(c, side[0]) + size_of(c, side[1]) || !(height[t] >= 0.0)) {
            return 0;
        }
    }
    return total == 2 * (c->n - 1);
}

sl_status
sl_condense(const int64_t *left, const int64_t *right, const double *height, const int64_t *size, ptrdiff_t n,
            ptrdiff_t min_size, int64_t *parent, int64_t *child, double *lambda, int64_t *child_size, ptrdiff_t *rows)
{
    condensing c = {left, right, size, n, 0, parent, child, child_size, lambda, NULL};
    int64_t *open = NULL, *name = NULL,
            next = n + 1; /* merges to split, breadth first, and the clusters they belong to */
    ptrdiff_t head = 0, tail = 0;
    sl_status status = SL_ERR_NOMEM;

    *rows = 0;
    if (n < 2 || min_size < 2) {
        return SL_ERR_ARG;
    }
    c.queue = sl_alloc(n, sizeof *c.queue);
    open = sl_alloc(n, sizeof *open);
    name = sl_alloc(n, sizeof *name);
    if (c.queue == NULL || open == NULL || name == NULL) {
        goto done;
    }
    status = SL_ERR_ARG;
    if (!is_dendrogram(&c, height)) {
        goto done;
    }
    open[tail] = 2 * n - 2;
    name[tail++] = n;
    while (head < tail) {
        const int64_t node = open[head], cluster = name[head], side[2] = {left[node - n], right[node - n]};
        const double at = height[node - n] > 0.0 ? 1.0 / height[node - n] : (double)INFINITY;
        const int large[2] = {size_of(&c, side[0]) >= min_size, size_of(&c, side[1]) >= min_size};
        head++;
        for (int k = 0; k < 2; k++) {
            if (!large[k]) {
                fall_out(&c, cluster, side[k], at);
            } else {
                if (large[1 - k]) {
                    add_row(&c, cluster, next, at, size_of(&c, side[k]));
                }
                open[tail] = side[k];
                name[tail++] = large[1 - k] ? next++ : cluster;
            }
        }
    }
    *rows = c.rows;
    status = SL_OK;
done:
    sl_free(name);
    sl_free(open);
    sl_free(c.queue);
    return status;
}

static void
clear(const sl_tree *tree)
{
    for (ptrdiff_t t = 0; t < tree->T; t++) {
        tree->up[t] = -1;
        tree->birth[t] = tree->lmax[t] = tree->stability[t] = 0.0;
    }
    for (ptrdiff_t p = 0; p < tree->n; p++) {
        tree->point_node[p] = -1;
    }
}

static int
is_complete(const sl_tree *tree)
{
    for (ptrdiff_t t = 1; t < tree->T; t++) {
        if (tree->up[t] < 0) {
            return 0;
        }
    }
    for (ptrdiff_t p = 0; p < tree->n; p++) {
        if (tree->point_node[p] < 0) {
            return 0;
        }
    }
    return 1;
}

sl_status
sl_tree_fill(const int64_t *parent, const int64_t *child, const double *lambda, const int64_t *child_size,
             ptrdiff_t rows, const sl_tree *tree)
{
    const int64_t n = tree->n, T = tree->T;

    if (n < 1 || T < 1) {
        return SL_ERR_ARG;
    }
    clear(tree);
    tree->up[0] = 0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const int64_t from = parent[r] - n;
        if (from < 0 || from >= T || child[r] < 0 || !(lambda[r] >= 0.0) || child_size[r] < 1) {
            return SL_ERR_ARG;
        }
        tree->lmax[from] = fmax(tree->lmax[from], lambda[r]);
        if (child[r] < n) {
            if (tree->point_node[child[r]] >= 0) {
                return SL_ERR_ARG;
            }
            tree->point_node[child[r]] = from;
            tree->point_lambda[child[r]] = lambda[r];
        } else {
            const int64_t to = child[r] - n;
            if (to <= from || to >= T || tree->up[to] >= 0) {
                return SL_ERR_ARG;
            }
            tree->up[to] = from;
            tree->birth[to] = lambda[r];
        }
    }
    if (!is_complete(tree)) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t r = 0; r < rows; r++) {
        const int64_t from = parent[r] - n;
        if (lambda[r] > tree->birth[from]) { /* never inf - inf */
            tree->stability[from] += (lambda[r] - tree->birth[from]) * (double)child_size[r];
        }
    }
    return SL_OK;
}

/* A node born at distance below epsilon gives way to its nearest ancestor born above it, or the last one below the root. */
static void
merge_near(const sl_tree *tree, double epsilon, uint8_t *selected)
{
    for (int64_t t = tree->T - 1; t > 0;
         t--) { /* ancestors have lower numbers: a node marked on the way up stays as it is */
        int64_t to = t;
        if (!selected[t] || !(1.0 / tree->birth[t] < epsilon)) {
            continue;
        }
        while (tree->up[to] != 0) {
            to = tree->up[to];
            if (1.0 / tree->birth[to] > epsilon) {
                break;
            }
        }
        selected[t] = 0;
        selected[to] = 2;
    }
    for (ptrdiff_t t = 0; t < tree->T; t++) {
        selected[t] = selected[t] != 0;
    }
    for (ptrdiff_t t = 1; t < tree->T; t++) { /* an ancestor that took over leaves nothing below it */
        int64_t to = tree->up[t];
        while (selected[t] && to != 0) {
            selected[t] = !selected[to];
            to = tree->up[to];
        }
    }
}

sl_status
sl_tree_select(const sl_tree *tree, sl_selection method, double epsilon, uint8_t *selected)
{
    double *inside;   /* sum over the child nodes of what they are worth, -1 without child nodes */
    uint8_t *covered; /* an ancestor is selected */

    if ((method != SL_SELECT_LEAF && method != SL_SELECT_EOM) || !(epsilon >= 0.0)) {
        return SL_ERR_ARG;
    }
    inside = sl_alloc(tree->T, sizeof *inside);
    covered = sl_alloc(tree->T, sizeof *covered);
    if (inside == NULL || covered == NULL) {
        sl_free(covered);
        sl_free(inside);
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t t = 0; t < tree->T; t++) {
        inside[t] = -1.0;
    }
    for (ptrdiff_t t = tree->T - 1; t > 0; t--) {
        const double children = inside[t], own = tree->stability[t];
        selected[t] = children < 0.0 || (method == SL_SELECT_EOM && !(children > own));
        inside[tree->up[t]] = fmax(inside[tree->up[t]], 0.0) + fmax(children, own);
    }
    selected[0] = covered[0] = 0;
    for (ptrdiff_t t = 1; t < tree->T; t++) {
        covered[t] = covered[tree->up[t]] || selected[tree->up[t]];
        selected[t] = selected[t] && !covered[t];
    }
    if (epsilon > 0.0) {
        merge_near(tree, epsilon, selected);
    }
    sl_free(covered);
    sl_free(inside);
    return SL_OK;
}

sl_status
sl_tree_labels(const sl_tree *tree, const uint8_t *selected, int64_t *concept_of, int64_t *labels, double *strength,
               uint8_t *exemplar)
{
    uint8_t *has_child = NULL;
    double *top = NULL; /* lmax of the selected node at or above */
    int64_t k = 0;
    sl_status status = SL_ERR_NOMEM;

    has_child = sl_alloc(tree->T, sizeof *has_child);
    top = sl_alloc(tree->T, sizeof *top);
    if (has_child == NULL || top == NULL) {
        goto done;
    }
    memset(has_child, 0, (size_t)tree->T);
    for (ptrdiff_t t = 0; t < tree->T; t++) {
        const int64_t up = tree->up[t];
        concept_of[t] = selected[t] ? k++ : t > 0 ? concept_of[up] : -1;
        top[t] = selected[t] || t == 0 ? tree->lmax[t] : top[up];
        has_child[up] |= t > 0;
    }
    for (ptrdiff_t p = 0; p < tree->n; p++) {
        const int64_t c = tree->point_node[p], label = concept_of[c];
        const double lambda = tree->point_lambda[p], most = top[c];
        if (labels != NULL) {
            labels[p] = label;
        }
        if (strength != NULL) {
            strength[p] = label < 0 ? 0.0 : isinf(lambda) || most == 0.0 ? 1.0 : fmin(lambda, most) / most;
        }
        if (exemplar != NULL) {
            exemplar[p] = label >= 0 && !has_child[c] && lambda == tree->lmax[c];
        }
    }
    status = SL_OK;
done:
    sl_free(top);
    sl_free(has_child);
    return status;
}

sl_status
sl_tree_heights(const sl_tree *tree, const uint8_t *selected, ptrdiff_t K, double *height)
{
    enum { BESIDE, ABOVE, BELOW };
    uint8_t *place = sl_alloc(tree->T, sizeof *place); /* of a node, seen from the selected one */
    ptrdiff_t k = 0;

    if (place == NULL) {
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t s = 0; s < tree->T && k < K; s++) {
        if (!selected[s]) {
            continue;
        }
        memset(place, BESIDE, (size_t)tree->T);
        for (int64_t t = s; t != 0; t = tree->up[t]) {
            place[tree->up[t]] = ABOVE;
        }
        place[s] = BELOW;
        for (ptrdiff_t t = 0; t < tree->T; t++) {
            const int64_t up = tree->up[t];
            if (t > s && place[up] == BELOW) {
                place[t] = BELOW;
            }
            height[t * K + k] = place[t] != BESIDE   ? (double)NAN
                                : place[up] == ABOVE ? tree->birth[t]
                                                     : height[up * K + k];
        }
        k++;
    }
    sl_free(place);
    return k == K ? SL_OK : SL_ERR_ARG;
}
