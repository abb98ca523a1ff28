/* Glue for sl_transformer.h.  Attention is cut along the pairs so that signals are looked at. */
#include "py_nn.h"
#include "sl/sl_transformer.h"

#include <string.h>

static const double BUDGET = 5e9; /* multiply-adds */

/* 0, or -1 with an error: `a` is a vector of n values, or NULL. */
static int
vector_of(PyArrayObject *a, npy_intp n, const char *argument)
{
    return sl_shape_is(a, 1, &n, argument);
}

PyDoc_STRVAR(doc_norm_rows, "norm_rows(x, weight, bias, eps, centred, out=None, n_threads=1)\n--\n\n"
                            "Layer norm (centred) or RMS norm over the last axis; out may be x.");

static PyObject *
py_norm_rows(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "weight", "bias", "eps", "centred", "out", "n_threads", NULL};
    PyObject *x_in, *w_in, *b_in, *out = Py_None, *result = NULL;
    PyArrayObject *x, *w = NULL, *b = NULL, *y = NULL;
    double eps;
    int centred, n_threads = 1, failed;
    npy_intp n;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOdp|Oi:norm_rows", names, &x_in, &w_in, &b_in, &eps, &centred,
                                     &out, &n_threads)) {
        return NULL;
    }
    x = sl_f32(x_in, 1, 0, "x");
    w = x == NULL ? NULL : sl_f32(w_in, 1, 1, "weight");
    b = PyErr_Occurred() ? NULL : sl_f32(b_in, 1, 1, "bias");
    failed = PyErr_Occurred() != NULL;
    if (failed) {
        goto done;
    }
    n = PyArray_DIM(x, PyArray_NDIM(x) - 1);
    y = sl_f32_out(out, PyArray_NDIM(x), PyArray_DIMS(x));
    if (y == NULL || vector_of(w, n, "weight") < 0 || vector_of(b, n, "bias") < 0 || sl_no_overlap(y, x, 1, "x") < 0 ||
        sl_no_overlap(y, w, 0, "weight") < 0 || sl_no_overlap(y, b, 0, "bias") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_norm_rows_f32(PyArray_DATA(x), n > 0 ? PyArray_SIZE(x) / n : 0, n, eps, centred,
                              w != NULL ? PyArray_DATA(w) : NULL, b != NULL ? PyArray_DATA(b) : NULL, PyArray_DATA(y),
                              n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "the last axis must not be empty, eps not negative, n_threads at least 1") == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)w);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_group_norm, "group_norm(x, groups, weight, bias, eps, out=None, n_threads=1)\n--\n\n"
                             "Normalisation of groups of channels of (B, C, ...); out may be x.");

static PyObject *
py_group_norm(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "groups", "weight", "bias", "eps", "out", "n_threads", NULL};
    PyObject *x_in, *w_in, *b_in, *out = Py_None, *result = NULL;
    PyArrayObject *x, *w = NULL, *b = NULL, *y = NULL;
    double eps;
    int n_threads = 1;
    npy_intp channels, batch, n;
    Py_ssize_t groups;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnOOd|Oi:group_norm", names, &x_in, &groups, &w_in, &b_in, &eps,
                                     &out, &n_threads)) {
        return NULL;
    }
    x = sl_f32(x_in, 2, 0, "x");
    w = x == NULL ? NULL : sl_f32(w_in, 1, 1, "weight");
    b = PyErr_Occurred() ? NULL : sl_f32(b_in, 1, 1, "bias");
    if (PyErr_Occurred()) {
        goto done;
    }
    batch = PyArray_DIM(x, 0);
    channels = PyArray_DIM(x, 1);
    n = batch > 0 && channels > 0 ? PyArray_SIZE(x) / batch / channels : 1;
    y = sl_f32_out(out, PyArray_NDIM(x), PyArray_DIMS(x));
    if (y == NULL || vector_of(w, channels, "weight") < 0 || vector_of(b, channels, "bias") < 0 ||
        sl_no_overlap(y, x, 1, "x") < 0 || sl_no_overlap(y, w, 0, "weight") < 0 || sl_no_overlap(y, b, 0, "bias") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_group_norm_f32(PyArray_DATA(x), batch, channels, n, groups, eps, w != NULL ? PyArray_DATA(w) : NULL,
                               b != NULL ? PyArray_DATA(b) : NULL, PyArray_DATA(y), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "groups must divide the channels, eps must not be negative") == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)w);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)y);
    return result;
}

/* New reference to keys or values: as they are where only the pairs lie apart, as in a cache that is not full. */
static PyArrayObject *
cached(PyObject *obj, const char *argument)
{
    PyArrayObject *a = (PyArrayObject *)obj;

    if (PyArray_Check(obj) && PyArray_TYPE(a) == NPY_FLOAT && PyArray_NDIM(a) == 3 && PyArray_ISBEHAVED_RO(a) &&
        PyArray_STRIDE(a, 2) == (npy_intp)sizeof(float) &&
        PyArray_STRIDE(a, 1) == PyArray_DIM(a, 2) * (npy_intp)sizeof(float) &&
        PyArray_STRIDE(a, 0) >= PyArray_DIM(a, 1) * PyArray_STRIDE(a, 1) &&
        PyArray_STRIDE(a, 0) % (npy_intp)sizeof(float) == 0) {
        return (PyArrayObject *)Py_NewRef(obj);
    }
    return sl_f32(obj, 3, 0, argument);
}

/* -1 with ValueError where y and the bytes that keys or values span overlap. */
static int
apart(PyArrayObject *y, PyArrayObject *a, const char *argument)
{
    const char *low = PyArray_BYTES(a), *first = PyArray_BYTES(y);
    const npy_intp pairs = PyArray_DIM(a, 0);
    const npy_intp span = pairs == 0 ? 0 : (pairs - 1) * PyArray_STRIDE(a, 0) + PyArray_NBYTES(a) / pairs;

    if (span == 0 || PyArray_NBYTES(y) == 0 || first + PyArray_NBYTES(y) <= low || low + span <= first) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "out shares memory with %s: give a separate array", argument);
    return -1;
}

/* Checks q (P, T, D), k (P, S, D), v (P, S, E), bias (R, T, S) or NULL against each other and fills the shape; 0, or -1 with ValueError. */
static int
attention_shape(PyArrayObject *q, PyArrayObject *k, PyArrayObject *v, PyArrayObject *bias, sl_attention_shape *s)
{
    if (PyArray_NDIM(q) != 3 || PyArray_NDIM(k) != 3 || PyArray_NDIM(v) != 3 ||
        (bias != NULL && PyArray_NDIM(bias) != 3)) {
        PyErr_SetString(PyExc_ValueError, "q, k, v and bias must have three axes: (pairs, tokens, features)");
        return -1;
    }
    s->pairs = PyArray_DIM(q, 0);
    s->queries = PyArray_DIM(q, 1);
    s->width = PyArray_DIM(q, 2);
    s->keys = PyArray_DIM(k, 1);
    s->depth = PyArray_DIM(v, 2);
    s->k_step = s->pairs > 1 ? PyArray_STRIDE(k, 0) / (npy_intp)sizeof(float) : 0;
    s->v_step = s->pairs > 1 ? PyArray_STRIDE(v, 0) / (npy_intp)sizeof(float) : 0;
    s->bias_pairs = bias != NULL ? PyArray_DIM(bias, 0) : 1;
    const npy_intp of_k[3] = {s->pairs, s->keys, s->width}, of_v[3] = {s->pairs, s->keys, s->depth},
                   of_bias[3] = {s->bias_pairs, s->queries, s->keys};
    return sl_shape_is(k, 3, of_k, "k") < 0 || sl_shape_is(v, 3, of_v, "v") < 0 ||
                   sl_shape_is(bias, 3, of_bias, "bias") < 0
               ? -1
               : 0;
}

/* Runs the kernel over pieces of whole bias cycles. */
static int
run_attention(const sl_attention_shape *s, PyArrayObject *const a[4], PyArrayObject *y, int n_threads)
{
    const npy_intp unit = s->bias_pairs > 0 ? s->bias_pairs : 1;
    const double each = (double)(unit * s->queries) * (double)s->keys * (double)(s->width + s->depth + 1);
    const npy_intp step = unit * sl_per_call(s->pairs / unit, each, BUDGET);
    const float *q = PyArray_DATA(a[0]), *k = PyArray_DATA(a[1]), *v = PyArray_DATA(a[2]),
                *bias = a[3] != NULL ? PyArray_DATA(a[3]) : NULL;
    float *out = PyArray_DATA(y);

    for (npy_intp p = 0; p == 0 || p < s->pairs; p += step) {
        sl_attention_shape part = *s;
        sl_status status;
        part.pairs = s->pairs - p < step ? s->pairs - p : step;
        Py_BEGIN_ALLOW_THREADS
        status = sl_attention_f32(&part, q + p * s->queries * s->width, k + p * s->k_step, v + p * s->v_step, bias,
                                  out + p * s->queries * s->depth, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "there must be keys (for causal attention as many as queries), the "
                             "bias must divide the pairs, n_threads be at least 1") < 0 ||
            PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_attention, "attention(q, k, v, bias, scale, causal, out=None, n_threads=1)\n--\n\n"
                            "softmax(scale q k^T + bias) v for each pair; q (P, T, D), k (P, S, D), v (P, S, E), bias "
                            "(R, T, S) or None with R dividing P.");

static PyObject *
py_attention(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"q", "k", "v", "bias", "scale", "causal", "out", "n_threads", NULL};
    static const char *const arguments[] = {"q", "k", "v", "bias"};
    PyObject *in[4], *out = Py_None, *result = NULL;
    PyArrayObject *a[4] = {NULL}, *y = NULL;
    sl_attention_shape s;
    int n_threads = 1;

    memset(&s, 0, sizeof s);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOfp|Oi:attention", names, &in[0], &in[1], &in[2], &in[3],
                                     &s.scale, &s.causal, &out, &n_threads)) {
        return NULL;
    }
    for (int i = 0; i < 4; i++) {
        a[i] = i == 1 || i == 2 ? cached(in[i], arguments[i]) : sl_f32(in[i], 3, i == 3, arguments[i]);
        if (PyErr_Occurred()) {
            goto done;
        }
    }
    if (attention_shape(a[0], a[1], a[2], a[3], &s) < 0) {
        goto done;
    }
    const npy_intp dims[3] = {s.pairs, s.queries, s.depth};
    y = sl_f32_out(out, 3, dims);
    if (y == NULL) {
        goto done;
    }
    for (int i = 0; i < 4; i++) {
        if ((i == 1 || i == 2 ? apart(y, a[i], arguments[i]) : sl_no_overlap(y, a[i], 0, arguments[i])) < 0) {
            goto done;
        }
    }
    if (run_attention(&s, a, y, n_threads) == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    for (int i = 0; i < 4; i++) {
        Py_XDECREF((PyObject *)a[i]);
    }
    Py_XDECREF((PyObject *)y);
    return result;
}

#define SL_KEYWORDS(name, function, doc)                                                                               \
    {name, (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS, doc}

PyMethodDef sl_transformer_methods[] = {
    SL_KEYWORDS("attention", py_attention, doc_attention),
    SL_KEYWORDS("group_norm", py_group_norm, doc_group_norm),
    SL_KEYWORDS("norm_rows", py_norm_rows, doc_norm_rows),
    {NULL, NULL, 0, NULL},
};
