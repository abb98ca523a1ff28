/* Glue for sl_bootstrap.h: parse, convert, check shapes, release the GIL, call block by block, map the status.  No arithmetic here. */
#include "py_common.h"
#include "sl/sl_bootstrap.h"

/* The arrays behind a call, to be released with it. */
typedef struct {
    PyArrayObject *table, *ids, *counts, *weights, *clusters, *targets, *target_ids, *values, *out, *wins;
    sl_examples x;
    sl_bootstrap_scores s;
} held;

static void
release(held *h)
{
    Py_CLEAR(h->table);
    Py_CLEAR(h->ids);
    Py_CLEAR(h->counts);
    Py_CLEAR(h->weights);
    Py_CLEAR(h->clusters);
    Py_CLEAR(h->targets);
    Py_CLEAR(h->target_ids);
    Py_CLEAR(h->values);
    Py_CLEAR(h->out);
    Py_CLEAR(h->wins);
}

/* 0 and *array (a new reference, or NULL for None), or -1 with an exception.  shape[i] < 0: any length. */
static int
optional(PyObject *obj, int type, int ndim, const npy_intp *shape, const char *name, PyArrayObject **array)
{
    if (obj == Py_None) {
        return 0;
    }
    *array = sl_array(obj, type, ndim, name);
    if (*array == NULL) {
        return -1;
    }
    for (int i = 0; i < ndim; i++) {
        if (shape[i] >= 0 && PyArray_DIM(*array, i) != shape[i]) {
            PyErr_Format(PyExc_ValueError, "%s must have length %zd along axis %d, not %zd", name, (Py_ssize_t)shape[i],
                         i, (Py_ssize_t)PyArray_DIM(*array, i));
            return -1;
        }
    }
    return 0;
}

static int
hold_examples(held *h, PyObject *table, PyObject *ids, PyObject *counts)
{
    h->table = sl_array(table, NPY_FLOAT, 2, "examples");
    h->ids = sl_array(ids, NPY_INT64, 2, "ids");
    if (h->table == NULL || h->ids == NULL) {
        return -1;
    }
    h->x = (sl_examples){.table = PyArray_DATA(h->table),
                         .rows = PyArray_DIM(h->table, 0),
                         .d = PyArray_DIM(h->table, 1),
                         .ids = PyArray_DATA(h->ids),
                         .K = PyArray_DIM(h->ids, 0),
                         .m = PyArray_DIM(h->ids, 1)};
    const npy_intp shape[] = {h->x.K};
    if (optional(counts, NPY_INT64, 1, shape, "counts", &h->counts) < 0) {
        return -1;
    }
    h->x.counts = h->counts != NULL ? PyArray_DATA(h->counts) : NULL;
    return 0;
}

static int
hold_scores(held *h, PyObject *weights, PyObject *clusters, PyObject *targets, PyObject *target_ids, PyObject *values)
{
    const npy_intp per_example[] = {h->x.K, h->x.m}, any[] = {-1, h->x.d}, first[] = {h->x.K, -1},
                   numbers[] = {h->x.K, -1, h->x.m};

    if ((targets == Py_None) != (target_ids == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "targets and target_ids must be given together");
        return -1;
    }
    if (optional(weights, NPY_FLOAT, 2, per_example, "weights", &h->weights) < 0 ||
        optional(clusters, NPY_INT32, 2, per_example, "clusters", &h->clusters) < 0 ||
        optional(targets, NPY_FLOAT, 2, any, "targets", &h->targets) < 0 ||
        optional(target_ids, NPY_INT64, 2, first, "target_ids", &h->target_ids) < 0 ||
        optional(values, NPY_DOUBLE, 3, numbers, "values", &h->values) < 0) {
        return -1;
    }
    h->s.weights = h->weights != NULL ? PyArray_DATA(h->weights) : NULL;
    h->s.clusters = h->clusters != NULL ? PyArray_DATA(h->clusters) : NULL;
    if (h->targets != NULL) {
        h->s.targets = PyArray_DATA(h->targets);
        h->s.T = PyArray_DIM(h->targets, 0);
        h->s.target_ids = PyArray_DATA(h->target_ids);
        h->s.P = PyArray_DIM(h->target_ids, 1);
    }
    if (h->values != NULL) {
        h->s.values = PyArray_DATA(h->values);
        h->s.V = PyArray_DIM(h->values, 1);
    }
    return 0;
}

/* Components k .. k + n - 1. */
static sl_status
call(const held *h, const sl_bootstrap_options *options, ptrdiff_t k, ptrdiff_t n, int n_threads)
{
    const ptrdiff_t S = 2 + h->s.P + h->s.V;
    sl_bootstrap_options o = *options;
    sl_bootstrap_scores s = h->s;
    sl_examples x = h->x;

    o.first += k;
    x.K = n;
    x.ids += k * x.m;
    x.counts = x.counts != NULL ? x.counts + k : NULL;
    s.weights = s.weights != NULL ? s.weights + k * x.m : NULL;
    s.clusters = s.clusters != NULL ? s.clusters + k * x.m : NULL;
    s.target_ids = s.target_ids != NULL ? s.target_ids + k * s.P : NULL;
    s.values = s.values != NULL ? s.values + k * s.V * x.m : NULL;
    return sl_bootstrap_f32(&x, &s, &o, (double *)PyArray_DATA(h->out) + k * S * SL_BOOTSTRAP_FIELDS,
                            (double *)PyArray_DATA(h->wins) + k * s.P, n_threads);
}

/* Components per call, so that a call stays below a second or so; the signals are looked at in between. */
static ptrdiff_t
block_of(const held *h, const sl_bootstrap_options *o)
{
    const double edge = (double)(h->x.m + h->s.P), m = (double)h->x.m,
                 each = edge * edge * (double)h->x.d + (double)o->resamples * (m * m * 4.0 + 500.0) + 1.0,
                 n = 2e9 / each;

    return n < 4.0 ? 4 : (n < (double)h->x.K ? (ptrdiff_t)n : (h->x.K > 0 ? h->x.K : 1));
}

PyDoc_STRVAR(
    doc_bootstrap,
    "bootstrap(examples, ids, counts=None, weights=None, clusters=None, targets=None, target_ids=None, values=None, *, "
    "normalize=False, resamples=1000, steps=20, level=0.95, seed=0, n_threads=1)\n--\n\n"
    "(K, 2 + P + V, 5) value, lower, upper, mean and deviation of the scores, and (K, P) shares of first places; see "
    "sl_bootstrap.h.");

static PyObject *
py_bootstrap(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"examples", "ids",        "counts", "weights",   "clusters",
                            "targets",  "target_ids", "values", "normalize", "resamples",
                            "steps",    "level",      "seed",   "n_threads", NULL};
    PyObject *table, *ids, *counts = Py_None, *weights = Py_None, *clusters = Py_None, *targets = Py_None,
                           *target_ids = Py_None, *values = Py_None, *result = NULL;
    sl_bootstrap_options o = {.resamples = 1000, .steps = 20, .level = 0.95};
    unsigned long long seed = 0;
    held h = {0};
    int n_threads = 1;
    npy_intp shape[3];

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOOOOO$piidKi:bootstrap", names, &table, &ids, &counts, &weights,
                                     &clusters, &targets, &target_ids, &values, &h.s.normalize, &o.resamples, &o.steps,
                                     &o.level, &seed, &n_threads)) {
        return NULL;
    }
    o.seed = seed;
    if (hold_examples(&h, table, ids, counts) < 0 ||
        hold_scores(&h, weights, clusters, targets, target_ids, values) < 0) {
        goto done;
    }
    shape[0] = h.x.K;
    shape[1] = 2 + h.s.P + h.s.V;
    shape[2] = SL_BOOTSTRAP_FIELDS;
    h.out = (PyArrayObject *)PyArray_SimpleNew(3, shape, NPY_DOUBLE);
    shape[1] = h.s.P;
    h.wins = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    if (h.out == NULL || h.wins == NULL) {
        goto done;
    }
    for (ptrdiff_t k = 0, step = block_of(&h, &o); k == 0 || k < h.x.K; k += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = call(&h, &o, k, h.x.K - k < step ? h.x.K - k : step, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status,
                     "bootstrap: ids must lie in [-1, rows of examples), counts in [0, m], weights be finite and not "
                     "negative, clusters below 2, target_ids in [-1, rows of targets), resamples at least 2, "
                     "steps at least 0, level between 0 and 1, n_threads at least 1") < 0 ||
            PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = PyTuple_Pack(2, h.out, h.wins);
done:
    release(&h);
    return result;
}

PyMethodDef sl_bootstrap_methods[] = {
    {"bootstrap", (PyCFunction)(void (*)(void))py_bootstrap, METH_VARARGS | METH_KEYWORDS, doc_bootstrap},
    {NULL, NULL, 0, NULL},
};
