/* Glue for sl_scores.h: parse, convert, check, release the GIL, call block by block, map the status.  No arithmetic here. */
#include "py_common.h"
#include "sl/sl_scores.h"

/* The arrays behind a sl_examples, to be released with it. */
typedef struct {
    PyArrayObject *table, *ids, *counts;
    sl_examples x;
} held_examples;

static void
release(held_examples *h)
{
    Py_CLEAR(h->table);
    Py_CLEAR(h->ids);
    Py_CLEAR(h->counts);
}

/* 0, or -1 with an exception; release() in either case. */
static int
hold(held_examples *h, PyObject *examples, PyObject *ids, PyObject *counts)
{
    *h = (held_examples){0};
    h->table = sl_array(examples, NPY_FLOAT, ids == Py_None ? 3 : 2, "examples");
    if (h->table == NULL) {
        return -1;
    }
    if (ids == Py_None) {
        h->x.K = PyArray_DIM(h->table, 0);
        h->x.m = PyArray_DIM(h->table, 1);
        h->x.d = PyArray_DIM(h->table, 2);
        h->x.rows = h->x.K * h->x.m;
    } else {
        h->ids = sl_array(ids, NPY_INT64, 2, "ids");
        if (h->ids == NULL) {
            return -1;
        }
        h->x.K = PyArray_DIM(h->ids, 0);
        h->x.m = PyArray_DIM(h->ids, 1);
        h->x.rows = PyArray_DIM(h->table, 0);
        h->x.d = PyArray_DIM(h->table, 1);
        h->x.ids = PyArray_DATA(h->ids);
    }
    h->x.table = PyArray_DATA(h->table);
    if (counts != Py_None) {
        h->counts = sl_array(counts, NPY_INT64, 1, "counts");
        if (h->counts == NULL || sl_same_length(h->counts, 0, h->ids != NULL ? h->ids : h->table, 0, "counts",
                                                h->ids != NULL ? "ids" : "examples") < 0) {
            return -1;
        }
        h->x.counts = PyArray_DATA(h->counts);
    }
    return 0;
}

/* New reference to an optional (K, m) array, or NULL: an exception is set if `failed` is. */
static PyArrayObject *
per_example(PyObject *obj, int type, const held_examples *h, const char *name, int *failed)
{
    PyArrayObject *array = NULL;

    if (obj != Py_None) {
        array = sl_array(obj, type, 2, name);
        if (array != NULL && (PyArray_DIM(array, 0) != h->x.K || PyArray_DIM(array, 1) != h->x.m)) {
            PyErr_Format(PyExc_ValueError, "%s must have shape (%zd, %zd), not (%zd, %zd)", name, (Py_ssize_t)h->x.K,
                         (Py_ssize_t)h->x.m, (Py_ssize_t)PyArray_DIM(array, 0), (Py_ssize_t)PyArray_DIM(array, 1));
            Py_CLEAR(array);
        }
        *failed |= array == NULL;
    }
    return array;
}

/* Components k .. k + n - 1. */
static sl_examples
part_of(const sl_examples *x, ptrdiff_t k, ptrdiff_t n)
{
    sl_examples part = *x;

    part.K = n;
    part.counts = x->counts != NULL ? x->counts + k : NULL;
    if (x->ids != NULL) {
        part.ids = x->ids + k * x->m;
    } else {
        part.table = x->table + k * x->m * x->d;
        part.rows = n * x->m;
    }
    return part;
}

/* Components per call, so that a call stays well below a second; the signals are looked at in between. */
static ptrdiff_t
block_of(const sl_examples *x, double operations_per_component)
{
    const double n = 1e9 / (operations_per_component + 1.0);

    return n < 1.0 ? 1 : (n < (double)x->K ? (ptrdiff_t)n : (x->K > 0 ? x->K : 1));
}

#define EXAMPLES_HINT "ids must lie in [-1, rows of examples), counts in [0, m], n_threads must be at least 1"

PyDoc_STRVAR(doc_clarity,
             "clarity(examples, ids=None, counts=None, weights=None, *, n_threads=1)\n--\n\n"
             "Mean pairwise cosine of each component's examples and how many were usable; see sl_scores.h.");

static PyObject *
py_clarity(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"examples", "ids", "counts", "weights", "n_threads", NULL};
    PyObject *table, *ids = Py_None, *counts = Py_None, *weights_in = Py_None, *result = NULL;
    PyArrayObject *weights = NULL, *clarity = NULL, *used = NULL;
    held_examples h = {0};
    int n_threads = 1, failed = 0;
    npy_intp K;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO$i:clarity", names, &table, &ids, &counts, &weights_in,
                                     &n_threads)) {
        return NULL;
    }
    if (hold(&h, table, ids, counts) < 0) {
        goto done;
    }
    weights = per_example(weights_in, NPY_FLOAT, &h, "weights", &failed);
    K = h.x.K;
    clarity = (PyArrayObject *)PyArray_SimpleNew(1, &K, NPY_DOUBLE);
    used = (PyArrayObject *)PyArray_SimpleNew(1, &K, NPY_INT64);
    if (failed || clarity == NULL || used == NULL) {
        goto done;
    }
    for (ptrdiff_t k = 0, step = block_of(&h.x, (double)h.x.m * (double)h.x.d); k == 0 || k < K; k += step) {
        const sl_examples part = part_of(&h.x, k, K - k < step ? K - k : step);
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_clarity_f32(&part, weights != NULL ? (const float *)PyArray_DATA(weights) + k * h.x.m : NULL,
                                (double *)PyArray_DATA(clarity) + k, (int64_t *)PyArray_DATA(used) + k, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "clarity: " EXAMPLES_HINT ", weights finite and not negative") < 0 ||
            PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = PyTuple_Pack(2, clarity, used);
done:
    Py_XDECREF((PyObject *)used);
    Py_XDECREF((PyObject *)clarity);
    Py_XDECREF((PyObject *)weights);
    release(&h);
    return result;
}

PyDoc_STRVAR(doc_vectors,
             "concept_vectors(examples, ids=None, counts=None, weights=None, *, normalize=False, n_threads=1)\n--\n\n"
             "Mean example of each component and how many were usable; see sl_scores.h.");

static PyObject *
py_concept_vectors(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"examples", "ids", "counts", "weights", "normalize", "n_threads", NULL};
    PyObject *table, *ids = Py_None, *counts = Py_None, *weights_in = Py_None, *result = NULL;
    PyArrayObject *weights = NULL, *vectors = NULL, *used = NULL;
    held_examples h = {0};
    int normalize = 0, n_threads = 1, failed = 0;
    npy_intp shape[2];

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO$pi:concept_vectors", names, &table, &ids, &counts,
                                     &weights_in, &normalize, &n_threads)) {
        return NULL;
    }
    if (hold(&h, table, ids, counts) < 0) {
        goto done;
    }
    weights = per_example(weights_in, NPY_FLOAT, &h, "weights", &failed);
    shape[0] = h.x.K;
    shape[1] = h.x.d;
    vectors = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_FLOAT);
    used = (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_INT64);
    if (failed || vectors == NULL || used == NULL) {
        goto done;
    }
    for (ptrdiff_t k = 0, step = block_of(&h.x, (double)h.x.m * (double)h.x.d); k == 0 || k < h.x.K; k += step) {
        const sl_examples part = part_of(&h.x, k, h.x.K - k < step ? h.x.K - k : step);
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_concept_vectors_f32(
            &part, weights != NULL ? (const float *)PyArray_DATA(weights) + k * h.x.m : NULL, normalize,
            (float *)PyArray_DATA(vectors) + k * h.x.d, (int64_t *)PyArray_DATA(used) + k, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "concept_vectors: " EXAMPLES_HINT ", weights finite and not negative") < 0 ||
            PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = PyTuple_Pack(2, vectors, used);
done:
    Py_XDECREF((PyObject *)used);
    Py_XDECREF((PyObject *)vectors);
    Py_XDECREF((PyObject *)weights);
    release(&h);
    return result;
}

/* What clustering one component costs, in rough operations. */
static double
poly_operations(const sl_examples *x, const sl_poly_options *o)
{
    const double m = (double)x->m;

    return m * m * (double)x->d +
           (o->exact && x->m <= SL_EXACT_MAX ? (double)((int64_t)1 << x->m) * m : 8.0 * o->n_init * m * m);
}

PyDoc_STRVAR(
    doc_polysemanticity,
    "polysemanticity(examples, ids=None, counts=None, labels=None, *, n_clusters=2, n_init=10, max_iter=300, seed=123, "
    "exact=False, n_threads=1)\n--\n\n"
    "One minus the cosine of the cluster centres of each component's examples, labels and inertia; see sl_scores.h.");

static PyObject *
py_polysemanticity(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"examples", "ids",  "counts", "labels",    "n_clusters", "n_init",
                            "max_iter", "seed", "exact",  "n_threads", NULL};
    PyObject *table, *ids = Py_None, *counts = Py_None, *labels_in = Py_None, *result = NULL;
    PyArrayObject *given = NULL, *score = NULL, *labels = NULL, *inertia = NULL;
    sl_poly_options o = {.n_clusters = 2, .n_init = 10, .max_iter = 300};
    unsigned long long seed = 123;
    held_examples h = {0};
    int n_threads = 1, failed = 0;
    npy_intp shape[2];

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO$iiiKpi:polysemanticity", names, &table, &ids, &counts,
                                     &labels_in, &o.n_clusters, &o.n_init, &o.max_iter, &seed, &o.exact, &n_threads)) {
        return NULL;
    }
    o.seed = seed;
    if (hold(&h, table, ids, counts) < 0) {
        goto done;
    }
    given = per_example(labels_in, NPY_INT32, &h, "labels", &failed);
    shape[0] = h.x.K;
    shape[1] = h.x.m;
    score = (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_DOUBLE);
    inertia = (PyArrayObject *)PyArray_SimpleNew(1, shape, NPY_DOUBLE);
    labels = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_INT32);
    if (failed || score == NULL || inertia == NULL || labels == NULL) {
        goto done;
    }
    for (ptrdiff_t k = 0, step = block_of(&h.x, poly_operations(&h.x, &o)); k == 0 || k < h.x.K; k += step) {
        const sl_examples part = part_of(&h.x, k, h.x.K - k < step ? h.x.K - k : step);
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status =
            sl_polysemanticity_f32(&part, given != NULL ? (const int32_t *)PyArray_DATA(given) + k * h.x.m : NULL, &o,
                                   (double *)PyArray_DATA(score) + k, (int32_t *)PyArray_DATA(labels) + k * h.x.m,
                                   (double *)PyArray_DATA(inertia) + k, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "polysemanticity: " EXAMPLES_HINT
                             ", labels below n_clusters, n_clusters at least 2, n_init and max_iter "
                             "at least 1; exact needs n_clusters = 2 and at most 20 examples") < 0 ||
            PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = PyTuple_Pack(3, score, labels, inertia);
done:
    Py_XDECREF((PyObject *)labels);
    Py_XDECREF((PyObject *)inertia);
    Py_XDECREF((PyObject *)score);
    Py_XDECREF((PyObject *)given);
    release(&h);
    return result;
}

PyMethodDef sl_scores_methods[] = {
    {"clarity", (PyCFunction)(void (*)(void))py_clarity, METH_VARARGS | METH_KEYWORDS, doc_clarity},
    {"concept_vectors", (PyCFunction)(void (*)(void))py_concept_vectors, METH_VARARGS | METH_KEYWORDS, doc_vectors},
    {"polysemanticity", (PyCFunction)(void (*)(void))py_polysemanticity, METH_VARARGS | METH_KEYWORDS,
     doc_polysemanticity},
    {NULL, NULL, 0, NULL},
};
