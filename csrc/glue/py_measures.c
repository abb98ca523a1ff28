/* Glue for sl_measures.h.  Long work is done in parts, with a look at the keyboard in between. */
#include "py_common.h"
#include "sl/sl_measures.h"

enum { CROSS_A_CALL = 4 * SL_CROSS_STEP };

/* Block rows between two looks at the keyboard: about a second's work for a thousand columns. */
static ptrdiff_t
blocks_a_call(npy_intp n)
{
    return n < 100000 ? 100000 / n + 1 : 1;
}

#define GRAM_HINT                                                                                                      \
    "rows must be finite, at least two of them with one column, and n_threads at least 1: remove NaN and inf first"
#define GRID_HINT "bins must lie in [1, 2^24], low below high, and the two arrays have equal numbers of rows"

/* Rows of a (n, d) float32 array packed, or NULL with an exception. */
static sl_gram *
gram_of(PyArrayObject *x, int n_threads)
{
    sl_gram *gram;
    sl_status status;

    Py_BEGIN_ALLOW_THREADS
    status = sl_gram_new(PyArray_DATA(x), PyArray_DIM(x, 0), PyArray_DIM(x, 1), n_threads, &gram);
    Py_END_ALLOW_THREADS
    return sl_raise(status, GRAM_HINT) == 0 ? gram : NULL;
}

PyDoc_STRVAR(doc_cross,
             "cross(a, b, *, n_threads=1)\n--\n\na^T b of (n, p) and (n, q) float64 arrays; half the work if "
             "b is a itself.");

static PyObject *
py_cross(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"a", "b", "n_threads", NULL};
    PyObject *a_in, *b_in, *out = NULL, *result = NULL;
    PyArrayObject *a = NULL, *b = NULL;
    int n_threads = 1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$i:cross", names, &a_in, &b_in, &n_threads)) {
        return NULL;
    }
    a = sl_array(a_in, NPY_DOUBLE, 2, "a");
    b = a_in == b_in && a != NULL ? (PyArrayObject *)Py_NewRef((PyObject *)a) : sl_array(b_in, NPY_DOUBLE, 2, "b");
    if (a == NULL || b == NULL || sl_same_length(b, 0, a, 0, "b", "a") < 0) {
        goto done;
    }
    const npy_intp n = PyArray_DIM(a, 0), p = PyArray_DIM(a, 1), q = PyArray_DIM(b, 1), shape[2] = {p, q};
    out = PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    if (out == NULL) {
        goto done;
    }
    for (npy_intp begin = 0; begin < p || begin == 0; begin += CROSS_A_CALL) {
        const npy_intp end = begin + CROSS_A_CALL < p ? begin + CROSS_A_CALL : p;
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_cross_f64(PyArray_DATA(a), PyArray_DATA(b), n, p, q, begin, end, PyArray_DATA((PyArrayObject *)out),
                              n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "cross: n_threads must be at least 1") < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = Py_NewRef(out);
done:
    Py_XDECREF(out);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)a);
    return result;
}

PyDoc_STRVAR(doc_pair_counts,
             "pair_counts(x, low, high, bins, *, distance=False, n_threads=1)\n--\n\n"
             "(bins,) int64: how many pairs of rows of x have a product, or a squared distance, in each bin.");

static PyObject *
py_pair_counts(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "low", "high", "bins", "distance", "n_threads", NULL};
    PyObject *x_in, *out = NULL, *result = NULL;
    PyArrayObject *x = NULL;
    sl_gram *gram = NULL;
    sl_gram_grid grid = {0, 0.0, 0.0, 0};
    Py_ssize_t bins;
    int n_threads = 1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oddn|$pi:pair_counts", names, &x_in, &grid.low, &grid.high, &bins,
                                     &grid.distance, &n_threads)) {
        return NULL;
    }
    grid.bins = bins;
    if (bins < 1) {
        PyErr_SetString(PyExc_ValueError, GRID_HINT);
        return NULL;
    }
    if ((x = sl_array(x_in, NPY_FLOAT, 2, "x")) == NULL || (gram = gram_of(x, n_threads)) == NULL ||
        (out = PyArray_ZEROS(1, &grid.bins, NPY_INT64, 0)) == NULL) {
        goto done;
    }
    const ptrdiff_t step = blocks_a_call(PyArray_DIM(x, 0)), blocks = sl_gram_blocks(PyArray_DIM(x, 0));
    for (ptrdiff_t begin = 0; begin < blocks; begin += step) {
        const ptrdiff_t end = begin + step < blocks ? begin + step : blocks;
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_gram_count(gram, &grid, begin, end, PyArray_DATA((PyArrayObject *)out), n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, GRID_HINT) < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = Py_NewRef(out);
done:
    Py_XDECREF(out);
    sl_gram_free(gram);
    Py_XDECREF((PyObject *)x);
    return result;
}

PyDoc_STRVAR(
    doc_pair_scores,
    "pair_scores(x, range_x, score_x, y, range_y, score_y, *, n_threads=1)\n--\n\n"
    "Sum over pairs of rows of score_x[bin of the product in x] score_y[bin in y]; a range is (low, high), its "
    "bins are as many as scores.");

static PyObject *
py_pair_scores(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "range_x", "score_x", "y", "range_y", "score_y", "n_threads", NULL};
    static const int ndim[4] = {2, 1, 2, 1};
    PyObject *in[4], *result = NULL;
    PyArrayObject *array[4] = {NULL, NULL, NULL, NULL};
    sl_gram *x = NULL, *y = NULL;
    sl_gram_grid gx = {0, 0.0, 0.0, 0}, gy = {0, 0.0, 0.0, 0};
    double sum = 0.0;
    int n_threads = 1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O(dd)OO(dd)O|$i:pair_scores", names, &in[0], &gx.low, &gx.high,
                                     &in[1], &in[2], &gy.low, &gy.high, &in[3], &n_threads)) {
        return NULL;
    }
    for (int t = 0; t < 4; t++) {
        static const char *const called[4] = {"x", "score_x", "y", "score_y"};
        if ((array[t] = sl_array(in[t], NPY_FLOAT, ndim[t], called[t])) == NULL) {
            goto done;
        }
    }
    gx.bins = PyArray_DIM(array[1], 0);
    gy.bins = PyArray_DIM(array[3], 0);
    if (sl_same_length(array[2], 0, array[0], 0, "y", "x") < 0 || (x = gram_of(array[0], n_threads)) == NULL ||
        (y = gram_of(array[2], n_threads)) == NULL) {
        goto done;
    }
    const ptrdiff_t step = blocks_a_call(PyArray_DIM(array[0], 0)), blocks = sl_gram_blocks(PyArray_DIM(array[0], 0));
    for (ptrdiff_t begin = 0; begin < blocks; begin += step) {
        const ptrdiff_t end = begin + step < blocks ? begin + step : blocks;
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status =
            sl_gram_score(x, &gx, PyArray_DATA(array[1]), y, &gy, PyArray_DATA(array[3]), begin, end, &sum, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, GRID_HINT) < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = PyFloat_FromDouble(sum);
done:
    sl_gram_free(y);
    sl_gram_free(x);
    for (int t = 0; t < 4; t++) {
        Py_XDECREF((PyObject *)array[t]);
    }
    return result;
}

PyDoc_STRVAR(
    doc_pair_gauss,
    "pair_gauss(x, rate_x, y, rate_y, *, n_threads=1)\n--\n\n"
    "(sums, rows_x, rows_y): of k = exp(-rate |x_i - x_j|^2) and l, the sums over pairs of (k l, k^2, l^2) and, "
    "int64 in units of 2^-40, the sums over the other rows.");

static PyObject *
py_pair_gauss(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "rate_x", "y", "rate_y", "n_threads", NULL};
    PyObject *x_in, *y_in, *out[3] = {NULL, NULL, NULL}, *result = NULL;
    PyArrayObject *xs = NULL, *ys = NULL;
    sl_gram *x = NULL, *y = NULL;
    double rate_x, rate_y;
    int n_threads = 1;
    npy_intp three = 3;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OdOd|$i:pair_gauss", names, &x_in, &rate_x, &y_in, &rate_y,
                                     &n_threads)) {
        return NULL;
    }
    if ((xs = sl_array(x_in, NPY_FLOAT, 2, "x")) == NULL || (ys = sl_array(y_in, NPY_FLOAT, 2, "y")) == NULL ||
        sl_same_length(ys, 0, xs, 0, "y", "x") < 0 || (x = gram_of(xs, n_threads)) == NULL ||
        (y = gram_of(ys, n_threads)) == NULL) {
        goto done;
    }
    npy_intp n = PyArray_DIM(xs, 0);
    out[0] = PyArray_ZEROS(1, &three, NPY_DOUBLE, 0);
    out[1] = PyArray_ZEROS(1, &n, NPY_INT64, 0);
    out[2] = PyArray_ZEROS(1, &n, NPY_INT64, 0);
    if (out[0] == NULL || out[1] == NULL || out[2] == NULL) {
        goto done;
    }
    for (ptrdiff_t begin = 0, step = blocks_a_call(n), blocks = sl_gram_blocks(n); begin < blocks; begin += step) {
        const ptrdiff_t end = begin + step < blocks ? begin + step : blocks;
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_gram_gauss(x, rate_x, y, rate_y, begin, end, PyArray_DATA((PyArrayObject *)out[0]),
                               PyArray_DATA((PyArrayObject *)out[1]), PyArray_DATA((PyArrayObject *)out[2]), n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "rate_x and rate_y must be at least 0") < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = PyTuple_Pack(3, out[0], out[1], out[2]);
done:
    for (int t = 0; t < 3; t++) {
        Py_XDECREF(out[t]);
    }
    sl_gram_free(y);
    sl_gram_free(x);
    Py_XDECREF((PyObject *)ys);
    Py_XDECREF((PyObject *)xs);
    return result;
}

/* Both passes over all block rows; 0, or -1 with an exception. */
static int
near_run(sl_near *near, npy_intp n, const double *u, int32_t *index, double *value, int64_t *searched)
{
    const ptrdiff_t step = blocks_a_call(n), blocks = sl_gram_blocks(n);

    for (ptrdiff_t t = 0, end; t < 2 * blocks; t = end) {
        const ptrdiff_t limit = t < blocks ? blocks : 2 * blocks;
        sl_status status;
        end = t + step < limit ? t + step : limit;
        Py_BEGIN_ALLOW_THREADS
        if (t < blocks) {
            status = sl_near_step(near, t, end);
        } else {
            status = sl_near_finish(near, u, t - blocks, end - blocks, index, value, searched);
        }
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "near_rows: bad block rows") < 0 || PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_near_rows, "near_rows(u, x, k, *, n_threads=1)\n--\n\n"
                            "(index, value, searched): the k other rows of u (n, d) float64 with the largest products, "
                            "exactly; x is u rounded to float32.");

static PyObject *
py_near_rows(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"u", "x", "k", "n_threads", NULL};
    PyObject *u_in, *x_in, *index = NULL, *value = NULL, *result = NULL;
    PyArrayObject *u = NULL, *x = NULL;
    sl_gram *gram = NULL;
    sl_near *near = NULL;
    Py_ssize_t k;
    int n_threads = 1;
    int64_t searched = 0;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOn|$i:near_rows", names, &u_in, &x_in, &k, &n_threads)) {
        return NULL;
    }
    if ((u = sl_array(u_in, NPY_DOUBLE, 2, "u")) == NULL || (x = sl_array(x_in, NPY_FLOAT, 2, "x")) == NULL ||
        sl_same_length(u, 0, x, 0, "u", "x") < 0 || sl_same_length(u, 1, x, 1, "u", "x") < 0 ||
        (gram = gram_of(x, n_threads)) == NULL) {
        goto done;
    }
    const npy_intp shape[2] = {PyArray_DIM(x, 0), k};
    status = sl_near_new(gram, k, n_threads, &near);
    if (sl_raise(status, "k must lie between 1 and the number of other rows") < 0) {
        goto done;
    }
    index = PyArray_SimpleNew(2, shape, NPY_INT32);
    value = PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    if (index != NULL && value != NULL &&
        near_run(near, shape[0], PyArray_DATA(u), PyArray_DATA((PyArrayObject *)index),
                 PyArray_DATA((PyArrayObject *)value), &searched) == 0) {
        result = Py_BuildValue("OOL", index, value, (long long)searched);
    }
done:
    Py_XDECREF(value);
    Py_XDECREF(index);
    sl_near_free(near);
    sl_gram_free(gram);
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)u);
    return result;
}

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_VARARGS | METH_KEYWORDS, doc_##name}

PyMethodDef sl_measures_methods[] = {
    ENTRY(cross), ENTRY(pair_counts), ENTRY(pair_scores), ENTRY(pair_gauss), ENTRY(near_rows), {NULL, NULL, 0, NULL},
};
