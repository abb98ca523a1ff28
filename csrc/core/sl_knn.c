/* Search tree and exact nearest neighbours.  Contract: sl_hdbscan.h.
 *
 * Sixteen queries walk the tree together: one look at a box costs 16 lanes, a block of points is scanned once for each query that still needs it.
 * A node is skipped when no query could gain from it; since the distance to a box is never rounded above the distance to a point inside,
 * nothing is lost, and ties are settled by the index, so that the answer does not depend on the way taken. */
#include <math.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_space_private.h"

typedef struct {
    const double *x;
    ptrdiff_t d, side;
} by_side;

static int
comes_before(const by_side *s, int32_t a, int32_t b)
{
    const double u = s->x[a * s->d + s->side], v = s->x[b * s->d + s->side];

    return u < v || (u == v && a < b);
}

static void
swap(int32_t *a, int32_t *b)
{
    const int32_t t = *a;

    *a = *b;
    *b = t;
}

/* Puts the k-th in its place, smaller ones before it, larger behind.  The order has no ties, so the two sides are determined. */
static void
part(const by_side *s, int32_t *order, ptrdiff_t n, ptrdiff_t k)
{
    ptrdiff_t low = 0, high = n - 1;

    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        ptrdiff_t i = low, j = high;
        if (comes_before(s, order[middle], order[low])) {
            swap(&order[middle], &order[low]);
        }
        if (comes_before(s, order[high], order[low])) {
            swap(&order[high], &order[low]);
        }
        if (comes_before(s, order[high], order[middle])) {
            swap(&order[high], &order[middle]);
        }
        const int32_t pivot = order[middle];
        while (i <= j) {
            while (comes_before(s, order[i], pivot)) {
                i++;
            }
            while (comes_before(s, pivot, order[j])) {
                j--;
            }
            if (i <= j) {
                swap(&order[i++], &order[j--]);
            }
        }
        if (k <= j) {
            high = j;
        } else if (k >= i) {
            low = i;
        } else {
            return;
        }
    }
}

/* Box and lowest index of the points of a node; returns the widest side. */
static ptrdiff_t
measure(sl_space *s, const double *x, ptrdiff_t node)
{
    const ptrdiff_t begin = s->node[node].first * (ptrdiff_t)SL_SPACE_BLOCK;
    const ptrdiff_t end = sl_space_min(s->node[node].last * (ptrdiff_t)SL_SPACE_BLOCK, s->n);
    double *box = s->boxes + node * s->d * 2;
    ptrdiff_t widest = 0;

    s->node[node].least = INT32_MAX;
    for (ptrdiff_t j = 0; j < s->d; j++) {
        box[2 * j] = HUGE_VAL;
        box[2 * j + 1] = -HUGE_VAL;
    }
    for (ptrdiff_t p = begin; p < end; p++) {
        const double *row = x + s->order[p] * s->d;
        for (ptrdiff_t j = 0; j < s->d; j++) {
            box[2 * j] = row[j] < box[2 * j] ? row[j] : box[2 * j];
            box[2 * j + 1] = row[j] > box[2 * j + 1] ? row[j] : box[2 * j + 1];
        }
        s->node[node].least = s->order[p] < s->node[node].least ? s->order[p] : s->node[node].least;
    }
    for (ptrdiff_t j = 1; j < s->d; j++) {
        widest = box[2 * j + 1] - box[2 * j] > box[2 * widest + 1] - box[2 * widest] ? j : widest;
    }
    return widest;
}

/* Splits nodes in order until each has one block. */
static void
grow(sl_space *s, const double *x)
{
    s->node[0] = (sl_space_node){-1, -1, 0, (int32_t)s->blocks, 0};
    s->nodes = 1;
    for (ptrdiff_t t = 0; t < s->nodes; t++) {
        sl_space_node *node = &s->node[t];
        const by_side side = {x, s->d, measure(s, x, t)};
        const int32_t middle = node->first + (node->last - node->first) / 2;
        const ptrdiff_t begin = node->first * (ptrdiff_t)SL_SPACE_BLOCK;
        if (node->last - node->first < 2) {
            continue;
        }
        part(&side, s->order + begin, sl_space_min(node->last * (ptrdiff_t)SL_SPACE_BLOCK, s->n) - begin,
             middle * (ptrdiff_t)SL_SPACE_BLOCK - begin);
        node->left = (int32_t)s->nodes;
        node->right = (int32_t)s->nodes + 1;
        s->node[s->nodes++] = (sl_space_node){-1, -1, node->first, middle, 0};
        s->node[s->nodes++] = (sl_space_node){-1, -1, middle, node->last, 0};
    }
}

static void
fill_block(double *block, const double *x, const int32_t *order, ptrdiff_t n, ptrdiff_t d)
{
    for (ptrdiff_t l = 0; l < SL_SPACE_BLOCK; l++) {
        for (ptrdiff_t j = 0; j < d; j++) {
            block[j * SL_SPACE_BLOCK + l] = l < n ? x[(order == NULL ? l : order[l]) * d + j] : (double)INFINITY;
        }
    }
}

static int
all_finite(const double *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return 0;
        }
    }
    return 1;
}

sl_status
sl_space_new(const double *x, ptrdiff_t n, ptrdiff_t d, sl_space **out)
{
    const ptrdiff_t blocks = n > 0 ? (n - 1) / SL_SPACE_BLOCK + 1 : 0;
    ptrdiff_t values, sides, side_values;
    sl_space *s;

    *out = NULL;
    if (n < 1 || d < 1 || n > INT32_MAX - SL_SPACE_BLOCK) {
        return SL_ERR_ARG;
    }
    if (sl_mul(blocks * SL_SPACE_BLOCK, d, &values) < 0 || sl_mul(2 * blocks, d, &sides) < 0 ||
        sl_mul(sides, 2, &side_values) < 0) {
        return SL_ERR_OVERFLOW;
    }
    if (!all_finite(x, n * d)) {
        return SL_ERR_NUMERIC;
    }
    s = sl_alloc(1, sizeof *s);
    if (s == NULL) {
        return SL_ERR_NOMEM;
    }
    *s = (sl_space){.n = n, .d = d, .blocks = blocks};
    s->order = sl_alloc(blocks * SL_SPACE_BLOCK, sizeof *s->order);
    s->points = sl_alloc(values, sizeof *s->points);
    s->boxes = sl_alloc(side_values, sizeof *s->boxes);
    s->node = sl_alloc(2 * blocks, sizeof *s->node);
    if (s->order == NULL || s->points == NULL || s->boxes == NULL || s->node == NULL) {
        sl_space_free(s);
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t p = 0; p < blocks * SL_SPACE_BLOCK; p++) {
        s->order[p] = p < n ? (int32_t)p : -1;
    }
    grow(s, x);
    for (ptrdiff_t b = 0; b < blocks; b++) {
        fill_block(s->points + b * d * SL_SPACE_BLOCK, x, s->order + b * SL_SPACE_BLOCK,
                   sl_space_min(SL_SPACE_BLOCK, n - b * SL_SPACE_BLOCK), d);
    }
    *out = s;
    return SL_OK;
}

void
sl_space_free(sl_space *s)
{
    if (s != NULL) {
        sl_free(s->node);
        sl_free(s->boxes);
        sl_free(s->points);
        sl_free(s->order);
        sl_free(s);
    }
}

/* Lower bounds of a node's distances and who could gain; returns the least of those, inf if there are none. */
static double
approach(const sl_space_walk *w, int32_t node, sl_space_visit *visit)
{
    const sl_space *s = w->space;
    const double *floor = w->floor;
    double raised[SL_SPACE_BLOCK], nearest = HUGE_VAL;

    if (w->least != NULL) {
        const double least = w->least[node];
        for (int l = 0; l < SL_SPACE_BLOCK; l++) {
            raised[l] = w->floor[l] < least ? least : w->floor[l];
        }
        floor = raised;
    }
    visit->node = node;
    visit->lanes = w->tier->space_box(w->block, s->boxes + node * s->d * 2, s->d, floor, w->bound, visit->squared);
    visit->lanes = visit->lanes == 0 ? 0 : w->screen(w, visit, visit->lanes);
    for (unsigned rest = visit->lanes; rest != 0; rest &= rest - 1) {
        const double squared = visit->squared[__builtin_ctz(rest)];
        nearest = squared < nearest ? squared : nearest;
    }
    return nearest;
}

void
sl_space_descend(sl_space_walk *w)
{
    const sl_space_node *nodes = w->space->node;
    sl_space_visit stack[SL_SPACE_DEPTH];
    ptrdiff_t top = 0;

    approach(w, 0, &stack[top++]);
    while (top > 0) {
        const sl_space_visit *visit = &stack[--top];
        const sl_space_node *node = &nodes[visit->node];
        unsigned lanes = visit->lanes & w->tier->space_within(visit->squared, w->bound);
        lanes = lanes == 0 ? 0 : w->screen(w, visit, lanes);
        if (node->left < 0) {
            for (; lanes != 0; lanes &= lanes - 1) {
                const int l = __builtin_ctz(lanes);
                if (visit->squared[l] <= w->bound[l]) { /* still */
                    w->scan(w, node->first, l);
                }
            }
        } else if (lanes != 0) {
            sl_space_visit left, right;
            const double a = approach(w, node->left, &left), b = approach(w, node->right, &right);
            const int left_first = a < b || (a == b && nodes[left.node].least < nodes[right.node].least);
            const sl_space_visit *near = left_first ? &left : &right, *far = left_first ? &right : &left;
            if (far->lanes != 0) {
                stack[top++] = *far;
            }
            if (near->lanes != 0) {
                stack[top++] = *near;
            }
        }
    }
}

/* Up to 16 queries with their lists, each sorted by (squared distance, index) and always full: unfilled entries are (inf, INT32_MAX). */
typedef struct {
    sl_space_walk walk;
    ptrdiff_t k;
    int32_t *index;  /* (16, k) */
    double *squared; /* (16, k); the last of each list is the walk's bound */
} search;

/* At the bound itself only a lower index wins. */
static unsigned
could_gain(const sl_space_walk *w, const sl_space_visit *visit, unsigned lanes)
{
    const search *q = (const search *)w;
    const int32_t least = w->space->node[visit->node].least;

    for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
        const int l = __builtin_ctz(rest);
        if (visit->squared[l] == w->bound[l] && least >= q->index[(l + 1) * q->k - 1]) {
            lanes &= ~(1U << l);
        }
    }
    return lanes;
}

static void
insert(const search *q, ptrdiff_t l, double squared, int32_t index)
{
    double *d = q->squared + l * q->k;
    int32_t *i = q->index + l * q->k;
    ptrdiff_t at = q->k - 1;

    while (at > 0 && (squared < d[at - 1] || (squared == d[at - 1] && index < i[at - 1]))) {
        d[at] = d[at - 1];
        i[at] = i[at - 1];
        at--;
    }
    d[at] = squared;
    i[at] = index;
}

static void
scan(sl_space_walk *w, ptrdiff_t block, int l)
{
    const search *q = (const search *)w;
    const sl_space *s = w->space;
    const ptrdiff_t last = (l + 1) * q->k - 1, first = block * SL_SPACE_BLOCK;
    double squared[SL_SPACE_BLOCK];
    unsigned lanes = w->tier->space_points(sl_space_block(s, block), w->block + l, s->d, w->bound[l], squared);

    for (; lanes != 0; lanes &= lanes - 1) {
        const ptrdiff_t p = __builtin_ctz(lanes);
        const int32_t index = s->order[first + p];
        if (index >= 0 &&
            (squared[p] < q->squared[last] || (squared[p] == q->squared[last] && index < q->index[last]))) {
            insert(q, l, squared[p], index);
        }
    }
    w->bound[l] = q->squared[last];
}

void
sl_space_search(const sl_space *s, const double *block, ptrdiff_t count, ptrdiff_t k, int32_t *index, double *squared)
{
    search q = {.walk = {.space = s, .tier = sl_tier_get(), .block = block, .screen = could_gain, .scan = scan},
                .k = k,
                .index = index,
                .squared = squared};

    for (int l = 0; l < SL_SPACE_BLOCK; l++) {
        q.walk.floor[l] = 0.0;
        q.walk.bound[l] = l < count ? HUGE_VAL : -1.0;
    }
    for (ptrdiff_t i = 0; i < count * k; i++) {
        index[i] = INT32_MAX;
        squared[i] = HUGE_VAL;
    }
    sl_space_descend(&q.walk);
}

sl_status
sl_space_nearest(const sl_space *s, const double *z, ptrdiff_t m, ptrdiff_t k, ptrdiff_t begin, ptrdiff_t end,
                 int32_t *index, double *squared, int n_threads)
{
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);
    const ptrdiff_t groups = (end - begin + SL_SPACE_BLOCK - 1) / SL_SPACE_BLOCK;
    double *blocks;

    if (n_threads < 1 || k < 1 || k > s->n || begin < 0 || end < begin || end > m) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t i = begin * s->d; i < end * s->d; i++) {
        if (isnan(z[i])) {
            return SL_ERR_NUMERIC;
        }
    }
    blocks = sl_alloc(threads * s->d * SL_SPACE_BLOCK, sizeof *blocks);
    if (blocks == NULL) {
        return SL_ERR_NOMEM;
    }
#pragma omp parallel for num_threads(threads) if (threads > 1 && groups > 1) schedule(dynamic, 1)
    for (ptrdiff_t g = 0; g < groups; g++) {
        const ptrdiff_t first = begin + g * SL_SPACE_BLOCK;
        double *block = blocks + sl_thread_index() * s->d * SL_SPACE_BLOCK;
        const ptrdiff_t count = sl_space_min(SL_SPACE_BLOCK, end - first);
        fill_block(block, z + first * s->d, NULL, count, s->d);
        sl_space_search(s, block, count, k, index + first * k, squared + first * k);
    }
    sl_free(blocks);
    return SL_OK;
}
