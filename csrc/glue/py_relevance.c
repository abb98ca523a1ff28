/* Glue for sl_relevance.h. */
#include "py_nn.h"
#include "sl/sl_relevance.h"

/* Relevance (rows, ...) and values (batch, ...) of one shape, rows a multiple of batch; 0, or -1 with an error. */
static int
fits(PyArrayObject *r, PyArrayObject *z, const char *argument, ptrdiff_t *repeats, ptrdiff_t *n)
{
    const npy_intp batch = PyArray_NDIM(z) > 0 ? PyArray_DIM(z, 0) : 0,
                   rows = PyArray_NDIM(r) > 0 ? PyArray_DIM(r, 0) : 0;
    int same = PyArray_NDIM(r) == PyArray_NDIM(z) && batch > 0 && rows % batch == 0;

    for (int i = 1; same && i < PyArray_NDIM(z); i++) {
        same = PyArray_DIM(r, i) == PyArray_DIM(z, i);
    }
    if (!same) {
        PyErr_Format(PyExc_ValueError, "%s must be (batch, ...) with the relevance's shape (batch * repeats, ...)",
                     argument);
        return -1;
    }
    *repeats = rows / batch;
    *n = PyArray_SIZE(z) / batch;
    return 0;
}

PyDoc_STRVAR(doc_quotient, "relevance_quotient(r, z, eps, clip, out=None, n_threads=1)\n--\n\n"
                           "r / st(z); see semanticlens._kernels.relevance.");

static PyObject *
py_quotient(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *r_in, *z_in, *out = Py_None, *result = NULL;
    PyArrayObject *r, *z = NULL, *s = NULL;
    ptrdiff_t repeats, n;
    float eps;
    int clip, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OOfp|Oi:relevance_quotient", &r_in, &z_in, &eps, &clip, &out, &n_threads)) {
        return NULL;
    }
    r = sl_f32(r_in, 0, 0, "r");
    z = r != NULL ? sl_f32(z_in, 0, 0, "z") : NULL;
    if (z == NULL || fits(r, z, "z", &repeats, &n) < 0) {
        goto done;
    }
    s = sl_f32_out(out, PyArray_NDIM(r), PyArray_DIMS(r));
    if (s == NULL || sl_no_overlap(s, r, 1, "r") < 0 || sl_no_overlap(s, z, 0, "z") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_relevance_quotient_f32(PyArray_DATA(r), PyArray_DATA(z), PyArray_DIM(z, 0), repeats, n, eps, clip,
                                       PyArray_DATA(s), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "n_threads must be at least 1") == 0) {
        result = Py_NewRef((PyObject *)s);
    }
done:
    Py_XDECREF((PyObject *)r);
    Py_XDECREF((PyObject *)z);
    Py_XDECREF((PyObject *)s);
    return result;
}

PyDoc_STRVAR(doc_times, "relevance_times(g, x, part, scale, sum=None, out=None, n_threads=1)\n--\n\n"
                        "scale * part(x) * g + sum; see semanticlens._kernels.relevance.");

static PyObject *
py_times(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *g_in, *x_in, *sum_in = Py_None, *out = Py_None, *result = NULL;
    PyArrayObject *g, *x = NULL, *sum = NULL, *y = NULL;
    ptrdiff_t repeats, n;
    float scale;
    int part, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OOif|OOi:relevance_times", &g_in, &x_in, &part, &scale, &sum_in, &out, &n_threads)) {
        return NULL;
    }
    g = sl_f32(g_in, 0, 0, "g");
    x = g != NULL ? sl_f32(x_in, 0, 0, "x") : NULL;
    if (x == NULL || fits(g, x, "x", &repeats, &n) < 0) {
        goto done;
    }
    sum = sl_f32(sum_in, PyArray_NDIM(g), 1, "sum");
    if (PyErr_Occurred() || sl_shape_is(sum, PyArray_NDIM(g), PyArray_DIMS(g), "sum") < 0) {
        goto done;
    }
    y = sl_f32_out(out, PyArray_NDIM(g), PyArray_DIMS(g));
    if (y == NULL || sl_no_overlap(y, g, 1, "g") < 0 || sl_no_overlap(y, x, 0, "x") < 0 ||
        sl_no_overlap(y, sum, 1, "sum") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_relevance_times_f32(PyArray_DATA(g), PyArray_DATA(x), PyArray_DIM(x, 0), repeats, n, (sl_seen)part,
                                    scale, sum != NULL ? PyArray_DATA(sum) : NULL, PyArray_DATA(y), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "part must be plain, positive or negative, and n_threads at least 1") == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)g);
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)sum);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_by_sign,
             "relevance_by_sign(r, z, n_threads=1)\n--\n\n"
             "Relevance above 0 and below 0, and bits of which is not 0; see semanticlens._kernels.relevance.");

static PyObject *
py_by_sign(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *r_in, *z_in, *result = NULL;
    PyArrayObject *r, *z = NULL, *above = NULL, *below = NULL;
    ptrdiff_t repeats, n;
    int found = 0, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OO|i:relevance_by_sign", &r_in, &z_in, &n_threads)) {
        return NULL;
    }
    r = sl_f32(r_in, 0, 0, "r");
    z = r != NULL ? sl_f32(z_in, 0, 0, "z") : NULL;
    if (z == NULL || fits(r, z, "z", &repeats, &n) < 0) {
        goto done;
    }
    above = sl_f32_out(Py_None, PyArray_NDIM(r), PyArray_DIMS(r));
    below = above != NULL ? sl_f32_out(Py_None, PyArray_NDIM(r), PyArray_DIMS(r)) : NULL;
    if (below == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_relevance_by_sign_f32(PyArray_DATA(r), PyArray_DATA(z), PyArray_DIM(z, 0), repeats, n,
                                      PyArray_DATA(above), PyArray_DATA(below), &found, n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "n_threads must be at least 1") == 0) {
        result = Py_BuildValue("OOi", (PyObject *)above, (PyObject *)below, found);
    }
done:
    Py_XDECREF((PyObject *)r);
    Py_XDECREF((PyObject *)z);
    Py_XDECREF((PyObject *)above);
    Py_XDECREF((PyObject *)below);
    return result;
}

PyMethodDef sl_relevance_methods[] = {
    {"relevance_by_sign", py_by_sign, METH_VARARGS, doc_by_sign},
    {"relevance_quotient", py_quotient, METH_VARARGS, doc_quotient},
    {"relevance_times", py_times, METH_VARARGS, doc_times},
    {NULL, NULL, 0, NULL},
};
