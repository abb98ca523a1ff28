/* Minimum spanning tree of mutual reachability.  Contract: sl_hdbscan.h.
 *
 * Boruvka: in each round every component finds its least edge outwards and all of them are taken.  Edges are totally ordered by (squared
 * weight, lower index, higher index), so a round cannot close a cycle and the tree is unique.
 *
 * A point's near neighbours, kept from the search for the core distances, give a first bound for its component.  Then points walk the search
 * tree, 16 at a time, as long as they could lower their component's bound.  The bound is shared by all threads and only ever falls; it says how
 * much is searched, never what is found: an edge as light as the bound is still looked at, and the winner is chosen afterwards, in order. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "sl/sl_cpu.h"
#include "sl_space_private.h"

enum { BLOCKS_A_STEP = 256, MOST_HINTS = 32 };

typedef struct {
    double squared;
    int32_t low, high;
} edge;

/* Of numbers that are not NaN. */
static double
larger(double a, double b)
{
    return a > b ? a : b;
}

static double
smaller(double a, double b)
{
    return a < b ? a : b;
}

typedef enum { CORES, HINTS, SEARCH, JOIN, READY } stage;

/* Arrays are indexed by place (position in the search tree's order) unless they say otherwise. */
struct sl_mst {
    const sl_space *s;
    ptrdiff_t min_samples, hints, edges, next;
    stage stage;
    double *core;            /* squared core distance */
    double *hint_squared;    /* (n, hints) */
    int32_t *hint_place;     /* (n, hints) nearest other points */
    int32_t *used;           /* hints up to here are in the point's own component, for good */
    int32_t *place_of;       /* by index */
    int32_t *component;      /* place of its representative */
    int32_t *above;          /* union-find */
    _Atomic uint64_t *bound; /* by representative: bits of the least squared weight met */
    double *best;            /* least edge of the point in this round: squared weight and place, inf and -1 for none */
    int32_t *best_place;     /* ... */
    double *lower;           /* no edge of the point to another component is lighter */
    int32_t *winner;         /* by representative: place that owns the component's least edge */
    double *node_core;       /* by node: least core distance */
    int32_t *node_component; /* by node: the component all its points are in, or -1 */
    edge *tree;              /* (n - 1) */
};

void
sl_mst_free(sl_mst *m)
{
    if (m != NULL) {
        sl_free(m->core);
        sl_free(m->hint_squared);
        sl_free(m->hint_place);
        sl_free(m->used);
        sl_free(m->place_of);
        sl_free(m->component);
        sl_free(m->above);
        sl_free(m->bound);
        sl_free(m->best);
        sl_free(m->best_place);
        sl_free(m->lower);
        sl_free(m->winner);
        sl_free(m->node_core);
        sl_free(m->node_component);
        sl_free(m->tree);
        sl_free(m);
    }
}

static int
allocate(sl_mst *m, ptrdiff_t n, ptrdiff_t nodes)
{
    m->core = sl_alloc(n, sizeof *m->core);
    m->hint_squared = sl_alloc(n * m->hints, sizeof *m->hint_squared);
    m->hint_place = sl_alloc(n * m->hints, sizeof *m->hint_place);
    m->used = sl_alloc(n, sizeof *m->used);
    m->place_of = sl_alloc(n, sizeof *m->place_of);
    m->component = sl_alloc(n, sizeof *m->component);
    m->above = sl_alloc(n, sizeof *m->above);
    m->bound = sl_alloc(n, sizeof *m->bound);
    m->best = sl_alloc(n, sizeof *m->best);
    m->best_place = sl_alloc(n, sizeof *m->best_place);
    m->lower = sl_alloc(n, sizeof *m->lower);
    m->winner = sl_alloc(n, sizeof *m->winner);
    m->node_core = sl_alloc(nodes, sizeof *m->node_core);
    m->node_component = sl_alloc(nodes, sizeof *m->node_component);
    m->tree = sl_alloc(n, sizeof *m->tree);
    return m->core != NULL && m->hint_squared != NULL && m->hint_place != NULL && m->used != NULL &&
           m->place_of != NULL && m->component != NULL && m->above != NULL && m->bound != NULL && m->best != NULL &&
           m->best_place != NULL && m->lower != NULL && m->winner != NULL && m->node_core != NULL &&
           m->node_component != NULL && m->tree != NULL;
}

sl_status
sl_mst_new(const sl_space *s, ptrdiff_t min_samples, sl_mst **out)
{
    sl_mst *m;

    *out = NULL;
    if (min_samples < 0 || min_samples >= s->n) {
        return SL_ERR_ARG;
    }
    m = sl_alloc(1, sizeof *m);
    if (m == NULL) {
        return SL_ERR_NOMEM;
    }
    memset(m, 0, sizeof *m);
    m->s = s;
    m->min_samples = min_samples;
    m->hints = sl_space_min(min_samples, MOST_HINTS);
    if (!allocate(m, s->n, s->nodes)) {
        sl_mst_free(m);
        return SL_ERR_NOMEM;
    }
    for (ptrdiff_t p = 0; p < s->n; p++) {
        m->place_of[s->order[p]] = (int32_t)p;
        m->component[p] = m->above[p] = (int32_t)p;
        m->used[p] = 0;
    }
    *out = m;
    return SL_OK;
}

/* Core distances and hints of one block; index and squared hold its lists. */
static void
measure_block(const sl_mst *m, ptrdiff_t block, int32_t *index, double *squared)
{
    const ptrdiff_t first = block * SL_SPACE_BLOCK, k = m->min_samples + 1;
    const ptrdiff_t count = sl_space_min(SL_SPACE_BLOCK, m->s->n - first);

    sl_space_search(m->s, sl_space_block(m->s, block), count, k, index, squared);
    for (ptrdiff_t l = 0; l < count; l++) {
        const ptrdiff_t p = first + l;
        ptrdiff_t found = 0;
        m->core[p] = m->lower[p] = squared[l * k + k - 1];
        for (ptrdiff_t t = 0; t < k && found < m->hints; t++) {
            const int32_t place = m->place_of[index[l * k + t]];
            if (place != p) {
                m->hint_place[p * m->hints + found] = place;
                m->hint_squared[p * m->hints + found++] = squared[l * k + t];
            }
        }
    }
}

static sl_status
measure_cores(sl_mst *m, ptrdiff_t end, int threads)
{
    const ptrdiff_t lists = SL_SPACE_BLOCK * (m->min_samples + 1);
    int32_t *index = sl_alloc(lists * threads, sizeof *index);
    double *squared = sl_alloc(lists * threads, sizeof *squared);

    if (index != NULL && squared != NULL) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
        for (ptrdiff_t b = m->next; b < end; b++) {
            measure_block(m, b, index + sl_thread_index() * lists, squared + sl_thread_index() * lists);
        }
    }
    const sl_status status = index != NULL && squared != NULL ? SL_OK : SL_ERR_NOMEM;
    sl_free(squared);
    sl_free(index);
    return status;
}

/* Least core and common component of each node; children come after their parent. */
static void
summarise_nodes(sl_mst *m, int cores)
{
    for (ptrdiff_t t = m->s->nodes - 1; t >= 0; t--) {
        const sl_space_node *node = &m->s->node[t];
        if (node->left >= 0) {
            const int32_t a = m->node_component[node->left], b = m->node_component[node->right];
            m->node_component[t] = a == b ? a : -1;
            if (cores) {
                m->node_core[t] = smaller(m->node_core[node->left], m->node_core[node->right]);
            }
            continue;
        }
        const ptrdiff_t first = node->first * (ptrdiff_t)SL_SPACE_BLOCK;
        const ptrdiff_t end = sl_space_min(first + SL_SPACE_BLOCK, m->s->n);
        m->node_component[t] = m->component[first];
        m->node_core[t] = m->core[first];
        for (ptrdiff_t p = first + 1; p < end; p++) {
            m->node_core[t] = smaller(m->node_core[t], m->core[p]);
            if (m->component[p] != m->component[first]) {
                m->node_component[t] = -1;
            }
        }
    }
}

static double
bound_of(const sl_mst *m, ptrdiff_t p)
{
    const uint64_t bits = atomic_load_explicit(&m->bound[m->component[p]], memory_order_relaxed);
    double bound;

    memcpy(&bound, &bits, sizeof bound); /* numbers of at least 0 are ordered like their bits */
    return bound;
}

static void
offer_bound(const sl_mst *m, ptrdiff_t p, double squared)
{
    _Atomic uint64_t *bound = &m->bound[m->component[p]];
    uint64_t bits, now = atomic_load_explicit(bound, memory_order_relaxed);

    memcpy(&bits, &squared, sizeof bits);
    while (bits < now &&
           !atomic_compare_exchange_weak_explicit(bound, &now, bits, memory_order_relaxed, memory_order_relaxed)) {
        continue;
    }
}

/* Whether the edge from place p to place r beats another with the same squared weight, by indices. */
static int
wins_tie(const sl_mst *m, ptrdiff_t p, ptrdiff_t r, ptrdiff_t other_p, ptrdiff_t other_r)
{
    const int32_t *order = m->s->order;
    const int32_t low = order[p] < order[r] ? order[p] : order[r], high = order[p] < order[r] ? order[r] : order[p];
    const int32_t a = order[other_p], b = order[other_r], other_low = a < b ? a : b, other_high = a < b ? b : a;

    return low < other_low || (low == other_low && high < other_high);
}

static void
offer(const sl_mst *m, ptrdiff_t p, ptrdiff_t r, double squared)
{
    if (squared < m->best[p] ||
        (squared == m->best[p] && (m->best_place[p] < 0 || wins_tie(m, p, r, p, m->best_place[p])))) {
        m->best[p] = squared;
        m->best_place[p] = (int32_t)r;
    }
}

static double
reach(const sl_mst *m, ptrdiff_t p, ptrdiff_t r, double squared)
{
    return larger(squared, larger(m->core[p], m->core[r]));
}

/* First bounds from the near neighbours, of which those in the own component are passed over for good. */
static void
take_hints(const sl_mst *m, ptrdiff_t p)
{
    const double *squared = m->hint_squared + p * m->hints;
    const int32_t *place = m->hint_place + p * m->hints;
    ptrdiff_t used = m->used[p];

    m->best[p] = HUGE_VAL;
    m->best_place[p] = -1;
    while (used < m->hints && m->component[place[used]] == m->component[p]) {
        used++;
    }
    m->used[p] = (int32_t)used;
    if (m->hints > 0) {
        m->lower[p] = larger(m->lower[p], squared[used < m->hints ? used : m->hints - 1]);
    }
    for (ptrdiff_t t = used; t < m->hints && squared[t] <= m->best[p]; t++) {
        if (m->component[place[t]] != m->component[p]) {
            offer(m, p, place[t], reach(m, p, place[t], squared[t]));
        }
    }
    offer_bound(m, p, m->best[p]);
}

/* The points of one block that look for an edge. */
typedef struct {
    sl_space_walk walk;
    const sl_mst *m;
    ptrdiff_t first, count;
    unsigned active;
} seekers;

/* How far the active ones look from now on. */
static void
set_bounds(seekers *q)
{
    for (unsigned rest = q->active; rest != 0; rest &= rest - 1) {
        const int l = __builtin_ctz(rest);
        const double own = q->m->best[q->first + l], all = bound_of(q->m, q->first + l);
        q->walk.bound[l] = own < all ? own : all;
    }
}

/* Whether seeker l, whose best edge is as light as the bound, could win the tie with an edge to a point of index `least` or more. */
static int
could_win_tie(const seekers *q, int l, int32_t least)
{
    const sl_mst *m = q->m;
    const ptrdiff_t p = q->first + l;
    const int32_t *order = m->s->order;
    const int32_t i = order[p], j = order[m->best_place[p]];
    const int32_t low = i < j ? i : j, high = i < j ? j : i;

    if (least < i) {
        return least < low || (least == low && i <= high);
    }
    return i < low || (i == low && least < high);
}

static unsigned
could_gain(const sl_space_walk *w, const sl_space_visit *visit, unsigned lanes)
{
    const seekers *q = (const seekers *)w;
    const sl_mst *m = q->m;
    const int32_t inside = m->node_component[visit->node], least = m->s->node[visit->node].least;

    for (unsigned rest = lanes; rest != 0; rest &= rest - 1) {
        const int l = __builtin_ctz(rest);
        const ptrdiff_t p = q->first + l;
        const double squared = visit->squared[l];
        if (inside == m->component[p] ||
            (squared == w->bound[l] && m->best_place[p] >= 0 && m->best[p] <= squared && !could_win_tie(q, l, least))) {
            lanes &= ~(1U << l);
        }
    }
    return lanes;
}

static void
scan(sl_space_walk *w, ptrdiff_t block, int l)
{
    seekers *q = (seekers *)w;
    const sl_mst *m = q->m;
    const ptrdiff_t p = q->first + l, begin = block * SL_SPACE_BLOCK;
    const double bound = w->bound[l];
    double squared[SL_SPACE_BLOCK];
    unsigned lanes = w->tier->space_points(sl_space_block(m->s, block), w->block + l, m->s->d, bound, squared);

    for (; lanes != 0; lanes &= lanes - 1) {
        const ptrdiff_t r = begin + __builtin_ctz(lanes);
        if (r < m->s->n && m->component[r] != m->component[p]) {
            const double weight = reach(m, p, r, squared[r - begin]);
            if (weight <= bound) {
                offer(m, p, r, weight);
            }
        }
    }
    if (m->best[p] < bound) {
        offer_bound(m, p, m->best[p]);
        set_bounds(q);
    }
}

static void
seek_block(const sl_mst *m, ptrdiff_t block)
{
    seekers q = {.walk = {.space = m->s,
                          .tier = sl_tier_get(),
                          .block = sl_space_block(m->s, block),
                          .least = m->node_core,
                          .screen = could_gain,
                          .scan = scan},
                 .m = m,
                 .first = block * SL_SPACE_BLOCK};

    q.count = sl_space_min(SL_SPACE_BLOCK, m->s->n - q.first);
    for (ptrdiff_t l = 0; l < SL_SPACE_BLOCK; l++) {
        q.walk.bound[l] = -1.0;
        q.walk.floor[l] = l < q.count ? m->core[q.first + l] : 0.0;
        if (l < q.count && m->lower[q.first + l] <= bound_of(m, q.first + l)) {
            q.active |= 1U << l;
        }
    }
    if (q.active == 0) {
        return;
    }
    set_bounds(&q);
    sl_space_descend(&q.walk);
    for (unsigned rest = q.active; rest != 0; rest &= rest - 1) {
        const ptrdiff_t p = q.first + __builtin_ctz(rest);
        /* components only grow, so what holds now will hold in the next round */
        m->lower[p] = larger(m->lower[p], q.walk.bound[p - q.first]);
    }
}

static int32_t
find(int32_t *above, int32_t p)
{
    while (above[p] != p) {
        p = above[p] = above[above[p]];
    }
    return p;
}

/* Takes the least edge of every component; 1 if one component is left. */
static int
join(sl_mst *m)
{
    const int32_t *order = m->s->order;
    const ptrdiff_t n = m->s->n;

    for (ptrdiff_t p = 0; p < n; p++) {
        m->winner[p] = -1;
    }
    for (ptrdiff_t p = 0; p < n; p++) {
        int32_t *w = &m->winner[m->component[p]];
        if (m->best_place[p] >= 0 &&
            (*w < 0 || m->best[p] < m->best[*w] ||
             (m->best[p] == m->best[*w] && wins_tie(m, p, m->best_place[p], *w, m->best_place[*w])))) {
            *w = (int32_t)p;
        }
    }
    for (ptrdiff_t c = 0; c < n; c++) {
        const int32_t p = m->winner[c];
        if (p >= 0) {
            const int32_t r = m->best_place[p], a = find(m->above, p), b = find(m->above, r);
            if (a != b) { /* two components may have chosen the same edge */
                m->above[b] = a;
                m->tree[m->edges++] = (edge){m->best[p], order[p] < order[r] ? order[p] : order[r],
                                             order[p] < order[r] ? order[r] : order[p]};
            }
        }
    }
    for (ptrdiff_t p = 0; p < n; p++) {
        m->component[p] = find(m->above, (int32_t)p);
    }
    return m->edges == n - 1;
}

static int
by_weight(const void *x, const void *y)
{
    const edge *a = x, *b = y;

    if (a->squared != b->squared) {
        return a->squared < b->squared ? -1 : 1;
    }
    return a->low != b->low ? (a->low > b->low) - (a->low < b->low) : (a->high > b->high) - (a->high < b->high);
}

static void
start_round(sl_mst *m, int threads)
{
    const double none = HUGE_VAL;
    uint64_t bits;

    memcpy(&bits, &none, sizeof bits);
    for (ptrdiff_t p = 0; p < m->s->n; p++) {
        atomic_init(&m->bound[p], bits);
    }
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (ptrdiff_t p = 0; p < m->s->n; p++) {
        take_hints(m, p);
    }
}

sl_status
sl_mst_step(sl_mst *m, int n_threads, int *done)
{
    const ptrdiff_t end = sl_space_min(m->next + BLOCKS_A_STEP, m->s->blocks);
    const int threads = sl_threads(n_threads < 1 ? 1 : n_threads);

    if (n_threads < 1) {
        return SL_ERR_ARG;
    }
    switch (m->stage) {
    case CORES:
        if (measure_cores(m, end, threads) != SL_OK) {
            return SL_ERR_NOMEM;
        }
        m->next = end;
        if (end == m->s->blocks) {
            summarise_nodes(m, 1);
            m->stage = m->s->n > 1 ? HINTS : READY;
        }
        break;
    case HINTS:
        start_round(m, threads);
        m->next = 0;
        m->stage = SEARCH;
        break;
    case SEARCH:
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic, 1)
        for (ptrdiff_t b = m->next; b < end; b++) {
            seek_block(m, b);
        }
        m->next = end;
        m->stage = end == m->s->blocks ? JOIN : SEARCH;
        break;
    case JOIN:
        if (join(m)) {
            qsort(m->tree, (size_t)m->edges, sizeof *m->tree, by_weight);
            m->stage = READY;
        } else {
            summarise_nodes(m, 0);
            m->stage = HINTS;
        }
        break;
    case READY:
        break;
    }
    *done = m->stage == READY;
    return SL_OK;
}

sl_status
sl_mst_read(const sl_mst *m, int64_t *low, int64_t *high, double *weight, double *core)
{
    if (m->stage != READY) {
        return SL_ERR_ARG;
    }
    for (ptrdiff_t t = 0; t < m->edges; t++) {
        low[t] = m->tree[t].low;
        high[t] = m->tree[t].high;
        weight[t] = sqrt(m->tree[t].squared);
    }
    for (ptrdiff_t p = 0; p < m->s->n; p++) {
        core[m->s->order[p]] = sqrt(m->core[p]);
    }
    return SL_OK;
}
