/* Glue for sl_elementwise.h and sl_pool.h.  These calls are bound by memory: a block between two looks at signals is 2^28 floats. */
#include "py_nn.h"
#include "sl/sl_elementwise.h"
#include "sl/sl_pool.h"

static const double BUDGET = 268435456.0;
static const char *const HINT = "n_threads must be at least 1 and activation a known number";

static npy_intp
product(PyArrayObject *a, int from, int to)
{
    npy_intp n = 1;

    for (int i = from; i < to; i++) {
        n *= PyArray_DIM(a, i);
    }
    return n;
}

PyDoc_STRVAR(doc_activate,
             "activate(x, activation, out=None, n_threads=1)\n--\n\nElementwise activation; out may be x.");

static PyObject *
py_activate(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "activation", "out", "n_threads", NULL};
    PyObject *x_in, *out = Py_None, *result = NULL;
    PyArrayObject *x, *y = NULL;
    int activation, n_threads = 1;
    npy_intp n, step;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oi|Oi:activate", names, &x_in, &activation, &out, &n_threads)) {
        return NULL;
    }
    x = sl_f32(x_in, 0, 0, "x");
    if (x == NULL) {
        return NULL;
    }
    y = sl_f32_out(out, PyArray_NDIM(x), PyArray_DIMS(x));
    if (y == NULL || sl_no_overlap(y, x, 1, "x") < 0) {
        goto done;
    }
    n = PyArray_SIZE(x);
    step = sl_per_call(n, 1.0, BUDGET);
    for (npy_intp i = 0; i == 0 || i < n; i += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_activate_f32((const float *)PyArray_DATA(x) + i, n - i < step ? n - i : step,
                                 (sl_activation)activation, (float *)PyArray_DATA(y) + i, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, HINT) < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = Py_NewRef((PyObject *)y);
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_add, "add(a, b, activation=0, out=None, n_threads=1)\n--\n\nSum of arrays of one shape, then the "
                      "activation; out may be a or b.");

static PyObject *
py_add(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"a", "b", "activation", "out", "n_threads", NULL};
    PyObject *a_in, *b_in, *out = Py_None, *result = NULL;
    PyArrayObject *a = NULL, *b = NULL, *y = NULL;
    int activation = 0, n_threads = 1;
    npy_intp n, step;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|iOi:add", names, &a_in, &b_in, &activation, &out, &n_threads)) {
        return NULL;
    }
    a = sl_f32(a_in, 0, 0, "a");
    b = sl_f32(b_in, 0, 0, "b");
    if (a == NULL || b == NULL || sl_shape_is(b, PyArray_NDIM(a), PyArray_DIMS(a), "b") < 0) {
        goto done;
    }
    y = sl_f32_out(out, PyArray_NDIM(a), PyArray_DIMS(a));
    if (y == NULL || sl_no_overlap(y, a, 1, "a") < 0 || sl_no_overlap(y, b, 1, "b") < 0) {
        goto done;
    }
    n = PyArray_SIZE(a);
    step = sl_per_call(n, 1.0, BUDGET);
    for (npy_intp i = 0; i == 0 || i < n; i += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status =
            sl_add_f32((const float *)PyArray_DATA(a) + i, (const float *)PyArray_DATA(b) + i,
                       n - i < step ? n - i : step, (sl_activation)activation, (float *)PyArray_DATA(y) + i, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, HINT) < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = Py_NewRef((PyObject *)y);
done:
    Py_XDECREF((PyObject *)a);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)y);
    return result;
}

/* 1: same shapes, 0: b scales the channels (first two axes) of a, -1 with ValueError: neither. */
static int
multiply_form(PyArrayObject *a, PyArrayObject *b)
{
    const int ndim = PyArray_NDIM(a);
    int same = PyArray_NDIM(b) == ndim, channels = PyArray_NDIM(b) == ndim && ndim >= 2;

    for (int i = 0; i < ndim && (same || channels); i++) {
        same = same && PyArray_DIM(a, i) == PyArray_DIM(b, i);
        channels = channels && PyArray_DIM(b, i) == (i < 2 ? PyArray_DIM(a, i) : 1);
    }
    if (same || channels) {
        return same;
    }
    (void)sl_shape_is(b, ndim, PyArray_DIMS(a), "b");
    return -1;
}

PyDoc_STRVAR(doc_multiply, "multiply(a, b, out=None, n_threads=1)\n--\n\n"
                           "Product of arrays of one shape, or of (B, C, ...) with (B, C, 1, ...); out may be a.");

static PyObject *
py_multiply(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"a", "b", "out", "n_threads", NULL};
    PyObject *a_in, *b_in, *out = Py_None, *result = NULL;
    PyArrayObject *a = NULL, *b = NULL, *y = NULL;
    int n_threads = 1, same;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|Oi:multiply", names, &a_in, &b_in, &out, &n_threads)) {
        return NULL;
    }
    a = sl_f32(a_in, 0, 0, "a");
    b = sl_f32(b_in, 0, 0, "b");
    same = a != NULL && b != NULL ? multiply_form(a, b) : -1;
    if (same < 0) {
        goto done;
    }
    y = sl_f32_out(out, PyArray_NDIM(a), PyArray_DIMS(a));
    if (y == NULL || sl_no_overlap(y, a, 1, "a") < 0 || sl_no_overlap(y, b, same, "b") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    if (same) {
        status = sl_multiply_f32(PyArray_DATA(a), PyArray_DATA(b), PyArray_SIZE(a), PyArray_DATA(y), n_threads);
    } else {
        status = sl_scale_rows_f32(PyArray_DATA(a), product(a, 0, 2), product(a, 2, PyArray_NDIM(a)), PyArray_DATA(b),
                                   PyArray_DATA(y), n_threads);
    }
    Py_END_ALLOW_THREADS
    if (sl_raise(status, HINT) == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)a);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_scale_shift, "scale_shift(x, scale, shift, activation=0, out=None, n_threads=1)\n--\n\n"
                              "Per-channel affine map of (B, C, ...), then the activation; out may be x.");

static PyObject *
py_scale_shift(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "scale", "shift", "activation", "out", "n_threads", NULL};
    PyObject *x_in, *scale_in, *shift_in, *out = Py_None, *result = NULL;
    PyArrayObject *x = NULL, *scale = NULL, *shift = NULL, *y = NULL;
    int activation = 0, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|iOi:scale_shift", names, &x_in, &scale_in, &shift_in,
                                     &activation, &out, &n_threads)) {
        return NULL;
    }
    x = sl_f32(x_in, 2, 0, "x");
    scale = sl_f32(scale_in, 1, 0, "scale");
    shift = sl_f32(shift_in, 1, 0, "shift");
    if (x == NULL || scale == NULL || shift == NULL || sl_shape_is(scale, 1, PyArray_DIMS(x) + 1, "scale") < 0 ||
        sl_shape_is(shift, 1, PyArray_DIMS(x) + 1, "shift") < 0) {
        goto done;
    }
    y = sl_f32_out(out, PyArray_NDIM(x), PyArray_DIMS(x));
    if (y == NULL || sl_no_overlap(y, x, 1, "x") < 0 || sl_no_overlap(y, scale, 0, "scale") < 0 ||
        sl_no_overlap(y, shift, 0, "shift") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_scale_shift_f32(PyArray_DATA(x), PyArray_DIM(x, 0), PyArray_DIM(x, 1), product(x, 2, PyArray_NDIM(x)),
                                PyArray_DATA(scale), PyArray_DATA(shift), (sl_activation)activation, PyArray_DATA(y),
                                n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, HINT) == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)scale);
    Py_XDECREF((PyObject *)shift);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_softmax, "softmax(x, out=None, n_threads=1)\n--\n\nSoftmax over the last axis; out may be x.");

static PyObject *
py_softmax(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "out", "n_threads", NULL};
    PyObject *x_in, *out = Py_None, *result = NULL;
    PyArrayObject *x, *y = NULL;
    int n_threads = 1, last;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|Oi:softmax", names, &x_in, &out, &n_threads)) {
        return NULL;
    }
    x = sl_f32(x_in, 1, 0, "x");
    if (x == NULL) {
        return NULL;
    }
    last = PyArray_NDIM(x) - 1;
    y = sl_f32_out(out, PyArray_NDIM(x), PyArray_DIMS(x));
    if (y == NULL || sl_no_overlap(y, x, 1, "x") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_softmax_f32(PyArray_DATA(x), product(x, 0, last), PyArray_DIM(x, last), PyArray_DATA(y), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, HINT) == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_reduce_positions,
             "reduce_positions(x, kind, n_threads=1)\n--\n\n"
             "(B, K, P) -> (B, K): 0 mean, 1 max, 2 absmean, 3 absmax over positions; NaN anywhere gives NaN.");

static PyObject *
py_reduce_positions(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "kind", "n_threads", NULL};
    PyObject *x_in, *result = NULL;
    PyArrayObject *x, *y = NULL;
    int kind, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oi|i:reduce_positions", names, &x_in, &kind, &n_threads)) {
        return NULL;
    }
    x = sl_array(x_in, NPY_FLOAT, 3, "x");
    if (x == NULL) {
        return NULL;
    }
    if (PyArray_DIM(x, 2) == 0) {
        PyErr_SetString(PyExc_ValueError, "x has no positions (its last axis is empty), so there is nothing to reduce");
        goto done;
    }
    y = (PyArrayObject *)PyArray_SimpleNew(2, PyArray_DIMS(x), NPY_FLOAT);
    if (y == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_reduce_f32(PyArray_DATA(x), product(x, 0, 2), PyArray_DIM(x, 2), (sl_reduction)kind, PyArray_DATA(y),
                           n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "reduce_positions: n_threads must be at least 1 and kind in 0..3") == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(
    doc_pool2d,
    "pool2d(x, kind, kernel, stride, padding, dilation, ceil_mode, count_include_pad, out=None, n_threads=1)\n--\n\n"
    "Pooling of (B, C, H, W): kind 0 max, 1 mean.");

static PyObject *
py_pool2d(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x",       "kind",      "kernel",    "stride",
                            "padding", "dilation",  "ceil_mode", "count_include_pad",
                            "out",     "n_threads", NULL};
    PyObject *x_in, *out = Py_None, *result = NULL;
    PyArrayObject *x, *y = NULL;
    sl_pool_shape s = {.planes = 0};
    ptrdiff_t out_h, out_w;
    npy_intp dims[4];
    int kind, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oi(nn)(nn)(nnnn)(nn)pp|Oi:pool2d", names, &x_in, &kind, &s.kernel_h,
                                     &s.kernel_w, &s.stride_h, &s.stride_w, &s.top, &s.left, &s.bottom, &s.right,
                                     &s.dilation_h, &s.dilation_w, &s.ceil_mode, &s.count_include_pad, &out,
                                     &n_threads)) {
        return NULL;
    }
    x = sl_array(x_in, NPY_FLOAT, 4, "x");
    if (x == NULL) {
        return NULL;
    }
    s.planes = product(x, 0, 2), s.height = PyArray_DIM(x, 2), s.width = PyArray_DIM(x, 3);
    status = sl_pool_output_size(&s, &out_h, &out_w);
    if (status == SL_ERR_OVERFLOW) {
        PyErr_SetString(PyExc_ValueError, "pool2d: an array of this shape would not fit into memory");
        goto done;
    }
    if (status != SL_OK) {
        PyErr_Format(PyExc_ValueError,
                     "windows of %zd x %zd (stride (%zd, %zd), dilation (%zd, %zd), all at least 1) do not fit a "
                     "picture of %zd x %zd with padding (%zd, %zd, "
                     "%zd, %zd), none negative",
                     (Py_ssize_t)s.kernel_h, (Py_ssize_t)s.kernel_w, (Py_ssize_t)s.stride_h, (Py_ssize_t)s.stride_w,
                     (Py_ssize_t)s.dilation_h, (Py_ssize_t)s.dilation_w, (Py_ssize_t)s.height, (Py_ssize_t)s.width,
                     (Py_ssize_t)s.top, (Py_ssize_t)s.left, (Py_ssize_t)s.bottom, (Py_ssize_t)s.right);
        goto done;
    }
    dims[0] = PyArray_DIM(x, 0), dims[1] = PyArray_DIM(x, 1), dims[2] = out_h, dims[3] = out_w;
    y = sl_f32_out(out, 4, dims);
    if (y == NULL || sl_no_overlap(y, x, 0, "x") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_pool2d_f32(&s, PyArray_DATA(x), (sl_pool_kind)kind, PyArray_DATA(y), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "pool2d: n_threads must be at least 1 and kind 0 or 1") == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(
    doc_adaptive,
    "adaptive_avg_pool2d(x, size, out=None, n_threads=1)\n--\n\n(B, C, H, W) -> (B, C, *size), means over cells.");

static PyObject *
py_adaptive(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "size", "out", "n_threads", NULL};
    PyObject *x_in, *out = Py_None, *result = NULL;
    PyArrayObject *x, *y = NULL;
    npy_intp dims[4];
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O(nn)|Oi:adaptive_avg_pool2d", names, &x_in, dims + 2, dims + 3,
                                     &out, &n_threads)) {
        return NULL;
    }
    x = sl_array(x_in, NPY_FLOAT, 4, "x");
    if (x == NULL) {
        return NULL;
    }
    if (dims[2] < 1 || dims[3] < 1 || PyArray_DIM(x, 2) < 1 || PyArray_DIM(x, 3) < 1) {
        PyErr_Format(PyExc_ValueError, "size (%zd, %zd) and the picture of %zd x %zd must be at least 1 x 1",
                     (Py_ssize_t)dims[2], (Py_ssize_t)dims[3], (Py_ssize_t)PyArray_DIM(x, 2),
                     (Py_ssize_t)PyArray_DIM(x, 3));
        goto done;
    }
    dims[0] = PyArray_DIM(x, 0), dims[1] = PyArray_DIM(x, 1);
    y = sl_f32_out(out, 4, dims);
    if (y == NULL || sl_no_overlap(y, x, 0, "x") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_adaptive_mean_f32(PyArray_DATA(x), dims[0] * dims[1], PyArray_DIM(x, 2), PyArray_DIM(x, 3), dims[2],
                                  dims[3], PyArray_DATA(y), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "adaptive_avg_pool2d: n_threads must be at least 1") == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_all_finite, "all_finite(x)\n--\n\nWhether no value is NaN or infinite.");

static PyObject *
py_all_finite(PyObject *Py_UNUSED(self), PyObject *x_in)
{
    PyArrayObject *x = sl_f32(x_in, 0, 0, "x");
    npy_intp n, step;
    int finite = 1;

    if (x == NULL) {
        return NULL;
    }
    n = PyArray_SIZE(x);
    step = sl_per_call(n, 1.0, BUDGET);
    for (npy_intp i = 0; finite && i < n; i += step) {
        Py_BEGIN_ALLOW_THREADS
        finite = sl_all_finite_f32((const float *)PyArray_DATA(x) + i, n - i < step ? n - i : step);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            Py_DECREF((PyObject *)x);
            return NULL;
        }
    }
    Py_DECREF((PyObject *)x);
    return PyBool_FromLong(finite);
}

PyDoc_STRVAR(doc_fma_peak, "fma_peak(seconds)\n--\n\nOperations per second of one core's multiply-adds on registers: "
                           "the ceiling that benchmarks divide by.");

static PyObject *
py_fma_peak(PyObject *Py_UNUSED(self), PyObject *args)
{
    double seconds, rate;

    if (!PyArg_ParseTuple(args, "d:fma_peak", &seconds)) {
        return NULL;
    }
    if (!(seconds >= 0.0 && seconds <= 10.0)) {
        PyErr_SetString(PyExc_ValueError, "seconds must lie in [0, 10]");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rate = sl_fma_peak(seconds);
    Py_END_ALLOW_THREADS
    return PyFloat_FromDouble(rate);
}

#define SL_KEYWORDS(name, function, doc)                                                                               \
    {name, (PyCFunction)(void (*)(void))function, METH_VARARGS | METH_KEYWORDS, doc}

PyMethodDef sl_elementwise_methods[] = {
    SL_KEYWORDS("activate", py_activate, doc_activate),
    SL_KEYWORDS("add", py_add, doc_add),
    SL_KEYWORDS("multiply", py_multiply, doc_multiply),
    SL_KEYWORDS("scale_shift", py_scale_shift, doc_scale_shift),
    SL_KEYWORDS("softmax", py_softmax, doc_softmax),
    SL_KEYWORDS("reduce_positions", py_reduce_positions, doc_reduce_positions),
    SL_KEYWORDS("pool2d", py_pool2d, doc_pool2d),
    SL_KEYWORDS("adaptive_avg_pool2d", py_adaptive, doc_adaptive),
    {"all_finite", py_all_finite, METH_O, doc_all_finite},
    {"fma_peak", py_fma_peak, METH_VARARGS, doc_fma_peak},
    {NULL, NULL, 0, NULL},
};
