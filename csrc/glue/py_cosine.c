/* Glue for sl_cosine.h: parse, convert, check, release the GIL, call block by block, map the status.  No arithmetic here. */
#include "py_common.h"
#include "sl/sl_cosine.h"

#include <math.h>

PyDoc_STRVAR(doc_cosine, "cosine(a, b, *, n_threads=1)\n--\n\n"
                         "All cosines of the rows of two matrices; see sl_cosine.h.");

static PyObject *
py_cosine(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"a", "b", "n_threads", NULL};
    PyObject *a_in, *b_in, *result = NULL;
    PyArrayObject *a = NULL, *b = NULL, *out = NULL;
    int n_threads = 1;
    npy_intp shape[2], d;
    ptrdiff_t step;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$i:cosine", names, &a_in, &b_in, &n_threads)) {
        return NULL;
    }
    a = sl_array(a_in, NPY_FLOAT, 2, "a");
    b = a != NULL ? sl_array(b_in, NPY_FLOAT, 2, "b") : NULL;
    if (b == NULL || sl_same_length(a, 1, b, 1, "a", "b") < 0) {
        goto done;
    }
    shape[0] = PyArray_DIM(a, 0);
    shape[1] = PyArray_DIM(b, 0);
    d = PyArray_DIM(a, 1);
    out = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_FLOAT);
    if (out == NULL) {
        goto done;
    }
    step = 1 + (ptrdiff_t)(1e10 / ((double)shape[1] * (double)d + 1.0));
    for (ptrdiff_t i = 0; i == 0 || i < shape[0]; i += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_cosine_f32((const float *)PyArray_DATA(a) + i * d, shape[0] - i < step ? shape[0] - i : step,
                               PyArray_DATA(b), shape[1], d, (float *)PyArray_DATA(out) + i * shape[1], n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "cosine: n_threads must be at least 1") < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = Py_NewRef((PyObject *)out);
done:
    Py_XDECREF((PyObject *)out);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)a);
    return result;
}

/* All panels, looking at the signals in between; 0, or -1 with an exception. */
static int
redundancy_panels(const float *unit, ptrdiff_t n, ptrdiff_t d, float *best, int64_t *nearest, int n_threads)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        best[i] = -INFINITY;
        nearest[i] = -1;
    }
    for (ptrdiff_t panel = 0; panel < sl_redundancy_panels(n); panel++) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_redundancy_panel_f32(unit, n, d, panel, best, nearest, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "redundancy: a panel was refused") < 0 || PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_redundancy, "redundancy(vectors, *, n_threads=1)\n--\n\n"
                             "Highest cosine of each row to another row, and that row; see sl_cosine.h.");

static PyObject *
py_redundancy(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"vectors", "n_threads", NULL};
    PyObject *x_in, *result = NULL;
    PyArrayObject *x = NULL, *value = NULL, *partner = NULL;
    float *unit = NULL, *best = NULL;
    int64_t *index = NULL, *nearest = NULL;
    int n_threads = 1;
    ptrdiff_t n, d, found = 0;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$i:redundancy", names, &x_in, &n_threads)) {
        return NULL;
    }
    x = sl_array(x_in, NPY_FLOAT, 2, "vectors");
    if (x == NULL) {
        return NULL;
    }
    n = PyArray_DIM(x, 0);
    d = PyArray_DIM(x, 1);
    value = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(x), NPY_DOUBLE);
    partner = (PyArrayObject *)PyArray_SimpleNew(1, PyArray_DIMS(x), NPY_INT64);
    unit = sl_alloc(n * d, sizeof *unit);
    best = sl_alloc(n, sizeof *best);
    index = sl_alloc(n, sizeof *index);
    nearest = sl_alloc(n, sizeof *nearest);
    if (value == NULL || partner == NULL || unit == NULL || best == NULL || index == NULL || nearest == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_unit_rows_f32(PyArray_DATA(x), n, d, unit, index, &found, n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "redundancy: n_threads must be at least 1") < 0 ||
        redundancy_panels(unit, found, d, best, nearest, n_threads) < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_redundancy_finish_f32(PyArray_DATA(x), n, d, index, found, nearest, PyArray_DATA(value),
                                      PyArray_DATA(partner), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "redundancy: n_threads must be at least 1") == 0) {
        result = PyTuple_Pack(2, value, partner);
    }
done:
    sl_free(nearest);
    sl_free(index);
    sl_free(best);
    sl_free(unit);
    Py_XDECREF((PyObject *)partner);
    Py_XDECREF((PyObject *)value);
    Py_XDECREF((PyObject *)x);
    return result;
}

/* All vectors in blocks, looking at the signals in between; 0, or -1 with an exception. */
static int
label_blocks(PyArrayObject *x, const float *unit, const int64_t *number, ptrdiff_t found, ptrdiff_t top,
             PyArrayObject *labels, PyArrayObject *scores, int n_threads)
{
    const ptrdiff_t K = PyArray_DIM(x, 0), d = PyArray_DIM(x, 1);
    const ptrdiff_t step = 240 * (1 + (ptrdiff_t)(1e8 / ((double)found * (double)d + 1.0)));

    for (ptrdiff_t k = 0; k == 0 || k < K; k += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_top_labels_f32((const float *)PyArray_DATA(x) + k * d, K - k < step ? K - k : step, d, unit, number,
                                   found, top, (int64_t *)PyArray_DATA(labels) + k * top,
                                   (float *)PyArray_DATA(scores) + k * top, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "top_labels: n and n_threads must be at least 1") < 0 || PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_top_labels, "top_labels(vectors, texts, n, *, n_threads=1)\n--\n\n"
                             "The n rows of texts closest to each row of vectors, and their cosines; see sl_cosine.h.");

static PyObject *
py_top_labels(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"vectors", "texts", "n", "n_threads", NULL};
    PyObject *x_in, *texts_in, *result = NULL;
    PyArrayObject *x = NULL, *texts = NULL, *labels = NULL, *scores = NULL;
    float *unit = NULL;
    int64_t *number = NULL;
    Py_ssize_t top;
    int n_threads = 1;
    npy_intp shape[2];
    ptrdiff_t found = 0;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOn|$i:top_labels", names, &x_in, &texts_in, &top, &n_threads)) {
        return NULL;
    }
    if (top < 1) {
        PyErr_Format(PyExc_ValueError, "n=%zd: must be at least 1", top);
        return NULL;
    }
    x = sl_array(x_in, NPY_FLOAT, 2, "vectors");
    texts = x != NULL ? sl_array(texts_in, NPY_FLOAT, 2, "texts") : NULL;
    if (texts == NULL || sl_same_length(x, 1, texts, 1, "vectors", "texts") < 0) {
        goto done;
    }
    shape[0] = PyArray_DIM(x, 0);
    shape[1] = top;
    labels = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_INT64);
    scores = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_FLOAT);
    unit = sl_alloc(PyArray_SIZE(texts), sizeof *unit);
    number = sl_alloc(PyArray_DIM(texts, 0), sizeof *number);
    if (labels == NULL || scores == NULL || unit == NULL || number == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_unit_rows_f32(PyArray_DATA(texts), PyArray_DIM(texts, 0), PyArray_DIM(texts, 1), unit, number, &found,
                              n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "top_labels: n_threads must be at least 1") == 0 &&
        label_blocks(x, unit, number, found, top, labels, scores, n_threads) == 0) {
        result = PyTuple_Pack(2, labels, scores);
    }
done:
    sl_free(number);
    sl_free(unit);
    Py_XDECREF((PyObject *)scores);
    Py_XDECREF((PyObject *)labels);
    Py_XDECREF((PyObject *)texts);
    Py_XDECREF((PyObject *)x);
    return result;
}

PyMethodDef sl_cosine_methods[] = {
    {"cosine", (PyCFunction)(void (*)(void))py_cosine, METH_VARARGS | METH_KEYWORDS, doc_cosine},
    {"redundancy", (PyCFunction)(void (*)(void))py_redundancy, METH_VARARGS | METH_KEYWORDS, doc_redundancy},
    {"top_labels", (PyCFunction)(void (*)(void))py_top_labels, METH_VARARGS | METH_KEYWORDS, doc_top_labels},
    {NULL, NULL, 0, NULL},
};
