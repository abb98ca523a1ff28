/* Glue for sl_conv.h and the dense layers of sl_gemm.h. */
#include "py_nn.h"
#include "sl/sl_contract.h"
#include "sl/sl_conv.h"
#include "sl/sl_gemm.h"

static const double BUDGET = 2e10; /* multiply-adds between two looks at pending signals: well below a second */

PyArrayObject *
sl_f32(PyObject *obj, int least, int optional, const char *argument)
{
    PyObject *array;

    if (optional && obj == Py_None) {
        return NULL;
    }
    if (PyArray_Check(obj) && PyArray_TYPE((PyArrayObject *)obj) == NPY_FLOAT &&
        PyArray_ISCARRAY_RO((PyArrayObject *)obj)) {
        array = Py_NewRef(obj);
    } else {
        array = PyArray_FromAny(obj, PyArray_DescrFromType(NPY_FLOAT), 0, 0, NPY_ARRAY_CARRAY_RO, NULL);
    }
    if (array != NULL && PyArray_NDIM((PyArrayObject *)array) < least) {
        PyErr_Format(PyExc_ValueError, "%s must have at least %d dimensions, not %d", argument, least,
                     PyArray_NDIM((PyArrayObject *)array));
        Py_CLEAR(array);
    }
    return (PyArrayObject *)array;
}

PyArrayObject *
sl_f32_out(PyObject *out, int ndim, const npy_intp *dims)
{
    PyArrayObject *array = (PyArrayObject *)out;

    if (out == Py_None) {
        return (PyArrayObject *)PyArray_SimpleNew(ndim, dims, NPY_FLOAT);
    }
    if (!PyArray_Check(out) || PyArray_TYPE(array) != NPY_FLOAT || !PyArray_ISCARRAY(array)) {
        PyErr_SetString(PyExc_TypeError, "out must be a writable, C-contiguous float32 array");
        return NULL;
    }
    if (sl_shape_is(array, ndim, dims, "out") < 0) {
        return NULL;
    }
    return (PyArrayObject *)Py_NewRef(out);
}

int
sl_no_overlap(PyArrayObject *out, PyArrayObject *in, int may_be, const char *argument)
{
    const char *a = PyArray_BYTES(out), *b = in != NULL ? PyArray_BYTES(in) : NULL;
    const npy_intp n_a = PyArray_NBYTES(out), n_b = in != NULL ? PyArray_NBYTES(in) : 0;

    if (in == NULL || n_a == 0 || n_b == 0 || a + n_a <= b || b + n_b <= a || (may_be && a == b && n_a == n_b)) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "out shares memory with %s: give a separate array%s", argument,
                 may_be ? ", or the same one" : "");
    return -1;
}

int
sl_shape_is(PyArrayObject *a, int ndim, const npy_intp *dims, const char *argument)
{
    PyObject *expected = NULL, *actual = NULL;
    int same = a == NULL || PyArray_NDIM(a) == ndim;

    for (int i = 0; a != NULL && same && i < ndim; i++) {
        same = PyArray_DIM(a, i) == dims[i];
    }
    if (same) {
        return 0;
    }
    expected = PyArray_IntTupleFromIntp(ndim, dims);
    actual = PyArray_IntTupleFromIntp(PyArray_NDIM(a), PyArray_DIMS(a));
    if (expected != NULL && actual != NULL) {
        PyErr_Format(PyExc_ValueError, "%s must have shape %S, not %S", argument, expected, actual);
    }
    Py_XDECREF(expected);
    Py_XDECREF(actual);
    return -1;
}

npy_intp
sl_per_call(npy_intp n, double operations, double budget)
{
    const double each = operations > 0.0 ? budget / operations : (double)n;

    return each < 1.0 ? 1 : each >= (double)n ? (n > 0 ? n : 1) : (npy_intp)each;
}

/* The weight's part of a shape. */
static int
weight_shape(PyArrayObject *weight, Py_ssize_t groups, sl_conv_shape *s)
{
    npy_intp channels;

    if (PyArray_NDIM(weight) != 4) {
        PyErr_Format(PyExc_ValueError,
                     "weight must have 4 dimensions (outputs, channels per group, height, width), not %d",
                     PyArray_NDIM(weight));
        return -1;
    }
    s->groups = groups;
    s->outputs = PyArray_DIM(weight, 0);
    s->kernel_h = PyArray_DIM(weight, 2);
    s->kernel_w = PyArray_DIM(weight, 3);
    if (PyArray_SIZE(weight) == 0) {
        PyErr_SetString(PyExc_ValueError, "weight is empty: every one of its sizes must be at least 1");
        return -1;
    }
    if (groups < 1 || s->outputs % groups != 0) {
        PyErr_Format(PyExc_ValueError, "groups=%zd must be at least 1 and divide the %zd outputs of weight", groups,
                     (Py_ssize_t)s->outputs);
        return -1;
    }
    channels = PyArray_DIM(weight, 1);
    if (sl_mul(channels, groups, &s->channels) < 0) {
        PyErr_SetString(PyExc_ValueError, "groups: the product with the channels of weight does not fit");
        return -1;
    }
    return 0;
}

/* Adds the picture's part; the message says which part is wrong. */
static int
picture_shape(PyArrayObject *x, sl_conv_shape *s, ptrdiff_t *out_h, ptrdiff_t *out_w)
{
    sl_status status;

    if (PyArray_NDIM(x) != 4) {
        PyErr_Format(PyExc_ValueError, "x must have 4 dimensions (batch, channels, height, width), not %d",
                     PyArray_NDIM(x));
        return -1;
    }
    if (PyArray_DIM(x, 1) != s->channels) {
        PyErr_Format(PyExc_ValueError, "x has %zd channels, but weight and groups=%zd ask for %zd",
                     (Py_ssize_t)PyArray_DIM(x, 1), (Py_ssize_t)s->groups, (Py_ssize_t)s->channels);
        return -1;
    }
    s->batch = PyArray_DIM(x, 0);
    s->height = PyArray_DIM(x, 2);
    s->width = PyArray_DIM(x, 3);
    if (s->stride_h < 1 || s->stride_w < 1 || s->dilation_h < 1 || s->dilation_w < 1) {
        PyErr_Format(PyExc_ValueError, "stride (%zd, %zd) and dilation (%zd, %zd) must be at least 1",
                     (Py_ssize_t)s->stride_h, (Py_ssize_t)s->stride_w, (Py_ssize_t)s->dilation_h,
                     (Py_ssize_t)s->dilation_w);
        return -1;
    }
    if (s->top < 0 || s->left < 0 || s->bottom < 0 || s->right < 0) {
        PyErr_Format(PyExc_ValueError, "padding (%zd, %zd, %zd, %zd) must not be negative", (Py_ssize_t)s->top,
                     (Py_ssize_t)s->left, (Py_ssize_t)s->bottom, (Py_ssize_t)s->right);
        return -1;
    }
    status = sl_conv_output_size(s, out_h, out_w);
    if (status == SL_ERR_OVERFLOW) {
        PyErr_SetString(PyExc_ValueError, "conv2d: an array of this shape would not fit into memory");
    } else if (status != SL_OK) {
        PyErr_Format(PyExc_ValueError,
                     "a kernel of %zd x %zd with dilation (%zd, %zd) reaches beyond a picture of %zd x %zd with "
                     "padding (%zd, %zd, %zd, %zd)",
                     (Py_ssize_t)s->kernel_h, (Py_ssize_t)s->kernel_w, (Py_ssize_t)s->dilation_h,
                     (Py_ssize_t)s->dilation_w, (Py_ssize_t)s->height, (Py_ssize_t)s->width, (Py_ssize_t)s->top,
                     (Py_ssize_t)s->left, (Py_ssize_t)s->bottom, (Py_ssize_t)s->right);
    }
    return status == SL_OK ? 0 : -1;
}

static int
packed_fits(const sl_conv_shape *s, PyArrayObject *packed)
{
    if (packed == NULL ||
        (PyArray_SIZE(packed) >= 16 && sl_conv_packed_check(s, PyArray_DATA(packed), PyArray_SIZE(packed)) == SL_OK)) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "packed was not made by pack_conv2d from a weight of this shape with these "
                                      "groups and this instruction-set tier: pack it again");
    return -1;
}

/* Some pictures per call, signals in between. */
static int
run_conv(sl_conv_shape s, ptrdiff_t pixels, const float *x, const float *w, const float *packed, const float *bias,
         const float *addend, int activation, float *y, int n_threads)
{
    const ptrdiff_t picture = s.channels * s.height * s.width, result = s.outputs * pixels, batch = s.batch;
    const npy_intp step = sl_per_call(
        batch, (double)result * (double)(s.channels / s.groups) * (double)(s.kernel_h * s.kernel_w), BUDGET);

    for (ptrdiff_t b = 0; b < batch; b += step) {
        sl_status status;
        s.batch = batch - b < step ? batch - b : step;
        Py_BEGIN_ALLOW_THREADS
        status = sl_conv2d_f32(&s, x + b * picture, w, packed, bias, addend != NULL ? addend + b * result : NULL,
                               (sl_activation)activation, y + b * result, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "conv2d: n_threads must be at least 1, activation a known number, "
                             "and packed NULL for depthwise weights") < 0 ||
            PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_conv2d, "conv2d(x, weight, bias=None, addend=None, packed=None, out=None, stride=(1, 1), padding=(0, "
                         "0, 0, 0), dilation=(1, 1), "
                         "groups=1, activation=0, n_threads=1)\n--\n\n"
                         "Convolution with fused bias, addend and activation; see semanticlens._kernels.nn.conv2d.");

static PyObject *
py_conv2d(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x",       "weight",   "bias",   "addend",     "packed",    "out", "stride",
                            "padding", "dilation", "groups", "activation", "n_threads", NULL};
    PyObject *x_in, *weight_in, *bias_in = Py_None, *addend_in = Py_None, *packed_in = Py_None, *out = Py_None,
                                *result = NULL;
    PyArrayObject *x = NULL, *weight = NULL, *bias = NULL, *addend = NULL, *packed = NULL, *y = NULL;
    sl_conv_shape s = {.stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1};
    Py_ssize_t groups = 1;
    ptrdiff_t out_h, out_w;
    npy_intp dims[4];
    int activation = 0, n_threads = 1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOOO(nn)(nnnn)(nn)nii:conv2d", names, &x_in, &weight_in,
                                     &bias_in, &addend_in, &packed_in, &out, &s.stride_h, &s.stride_w, &s.top, &s.left,
                                     &s.bottom, &s.right, &s.dilation_h, &s.dilation_w, &groups, &activation,
                                     &n_threads)) {
        return NULL;
    }
    x = sl_f32(x_in, 0, 0, "x");
    weight = sl_f32(weight_in, 0, 0, "weight");
    bias = sl_f32(bias_in, 0, 1, "bias");
    addend = sl_f32(addend_in, 0, 1, "addend");
    packed = sl_f32(packed_in, 1, 1, "packed");
    if (PyErr_Occurred() || weight_shape(weight, groups, &s) < 0 || picture_shape(x, &s, &out_h, &out_w) < 0) {
        goto done;
    }
    dims[0] = s.batch, dims[1] = s.outputs, dims[2] = out_h, dims[3] = out_w;
    if (sl_shape_is(bias, 1, dims + 1, "bias") < 0 || sl_shape_is(addend, 4, dims, "addend") < 0 ||
        packed_fits(&s, packed) < 0) {
        goto done;
    }
    y = sl_f32_out(out, 4, dims);
    if (y == NULL || sl_no_overlap(y, x, 0, "x") < 0 || sl_no_overlap(y, weight, 0, "weight") < 0 ||
        sl_no_overlap(y, bias, 0, "bias") < 0 || sl_no_overlap(y, addend, 1, "addend") < 0 ||
        sl_no_overlap(y, packed, 0, "packed") < 0) {
        goto done;
    }
    if (run_conv(s, out_h * out_w, PyArray_DATA(x), PyArray_DATA(weight), packed != NULL ? PyArray_DATA(packed) : NULL,
                 bias != NULL ? PyArray_DATA(bias) : NULL, addend != NULL ? PyArray_DATA(addend) : NULL, activation,
                 PyArray_DATA(y), n_threads) == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)weight);
    Py_XDECREF((PyObject *)bias);
    Py_XDECREF((PyObject *)addend);
    Py_XDECREF((PyObject *)packed);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(
    doc_conv2d_packed_size,
    "conv2d_packed_size(weight, groups)\n--\n\nFloats that conv2d_pack writes; 0 where packing brings nothing.");

static PyObject *
py_conv2d_packed_size(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *weight_in;
    PyArrayObject *weight;
    sl_conv_shape s = {.batch = 0};
    Py_ssize_t groups;
    ptrdiff_t size = 0;
    int failed;

    if (!PyArg_ParseTuple(args, "On:conv2d_packed_size", &weight_in, &groups)) {
        return NULL;
    }
    weight = sl_f32(weight_in, 0, 0, "weight");
    if (weight == NULL) {
        return NULL;
    }
    failed = weight_shape(weight, groups, &s) < 0 ||
             sl_raise(sl_conv_packed_size(&s, &size), "weight: its packed form does not fit into memory") < 0;
    Py_DECREF((PyObject *)weight);
    return failed ? NULL : PyLong_FromSsize_t(size);
}

PyDoc_STRVAR(doc_conv2d_pack,
             "conv2d_pack(weight, groups, out, variant=(0, 0.0))\n--\n\n"
             "Pack a variant of weights for conv2d or conv_forward into out (conv2d_packed_size floats).");

static PyObject *
py_conv2d_pack(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *weight_in, *out, *result = NULL;
    PyArrayObject *weight, *y = NULL;
    sl_conv_shape s = {.batch = 0};
    Py_ssize_t groups;
    ptrdiff_t size = 0;
    sl_variant variant = {SL_SEEN_PLAIN, 0.0F};
    int seen = 0;

    if (!PyArg_ParseTuple(args, "OnO|(if):conv2d_pack", &weight_in, &groups, &out, &seen, &variant.gamma)) {
        return NULL;
    }
    variant.seen = (sl_seen)seen;
    weight = sl_f32(weight_in, 0, 0, "weight");
    if (weight == NULL || weight_shape(weight, groups, &s) < 0 ||
        sl_raise(sl_conv_packed_size(&s, &size), "weight: its packed form does not fit into memory") < 0) {
        goto done;
    }
    if (size == 0) {
        PyErr_SetString(PyExc_ValueError, "weight is of a depthwise convolution, which has no packed form");
        goto done;
    }
    y = sl_array_inout(out, NPY_FLOAT, 1, "out");
    if (y == NULL || sl_shape_is(y, 1, &size, "out") < 0 || sl_no_overlap(y, weight, 0, "weight") < 0) {
        goto done;
    }
    if (sl_raise(sl_conv_forward_pack_f32(&s, PyArray_DATA(weight), variant, PyArray_DATA(y)),
                 "variant must be known") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)weight);
    Py_XDECREF((PyObject *)y);
    return result;
}

static int
run_dense(const float *x, npy_intp m, npy_intp k, const float *w, npy_intp n, const float *packed, const float *bias,
          const float *addend, int activation, float *y, int n_threads)
{
    const npy_intp step = sl_per_call(m, (double)n * (double)k, BUDGET);

    for (npy_intp i = 0; i < m; i += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_dense_f32(x + i * k, m - i < step ? m - i : step, k, w, n, packed, bias,
                              addend != NULL ? addend + i * n : NULL, (sl_activation)activation, y + i * n, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "dense: n_threads must be at least 1, activation a known number, and "
                             "the result must fit into memory") < 0 ||
            PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_dense,
             "dense(x, weight, bias=None, packed=None, out=None, activation=0, n_threads=1, addend=None)\n--\n\n"
             "Dense layer over the last axis; see semanticlens._kernels.nn.dense.");

static PyObject *
py_dense(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "weight", "bias", "packed", "out", "activation", "n_threads", "addend", NULL};
    PyObject *x_in, *weight_in, *bias_in = Py_None, *packed_in = Py_None, *addend_in = Py_None, *out = Py_None,
                                *result = NULL;
    PyArrayObject *x = NULL, *weight = NULL, *bias = NULL, *packed = NULL, *addend = NULL, *y = NULL;
    npy_intp dims[NPY_MAXDIMS], k, n, m = 1;
    int activation = 0, n_threads = 1, last;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOOiiO:dense", names, &x_in, &weight_in, &bias_in, &packed_in,
                                     &out, &activation, &n_threads, &addend_in)) {
        return NULL;
    }
    x = sl_f32(x_in, 1, 0, "x");
    weight = sl_f32(weight_in, 2, 0, "weight");
    bias = sl_f32(bias_in, 1, 1, "bias");
    packed = sl_f32(packed_in, 1, 1, "packed");
    addend = sl_f32(addend_in, 1, 1, "addend");
    if (PyErr_Occurred()) {
        goto done;
    }
    last = PyArray_NDIM(x) - 1;
    k = PyArray_DIM(x, last);
    n = PyArray_DIM(weight, 0);
    if (PyArray_NDIM(weight) != 2 || PyArray_DIM(weight, 1) != k) {
        PyErr_Format(PyExc_ValueError,
                     "weight must have shape (outputs, %zd) for the last axis of x, not %zd axes with %zd inputs",
                     (Py_ssize_t)k, (Py_ssize_t)PyArray_NDIM(weight), (Py_ssize_t)PyArray_DIM(weight, 1));
        goto done;
    }
    for (int i = 0; i < last; i++) {
        dims[i] = PyArray_DIM(x, i);
        m *= dims[i];
    }
    dims[last] = n;
    if (sl_shape_is(bias, 1, &n, "bias") < 0 || sl_shape_is(addend, last + 1, dims, "addend") < 0) {
        goto done;
    }
    if (packed != NULL && (PyArray_SIZE(packed) < 16 ||
                           sl_dense_packed_check(n, k, PyArray_DATA(packed), PyArray_SIZE(packed)) != SL_OK)) {
        PyErr_SetString(PyExc_ValueError, "packed was not made by pack_dense from a weight of this shape with this "
                                          "instruction-set tier: pack it again");
        goto done;
    }
    y = sl_f32_out(out, last + 1, dims);
    if (y == NULL || sl_no_overlap(y, x, 0, "x") < 0 || sl_no_overlap(y, weight, 0, "weight") < 0 ||
        sl_no_overlap(y, bias, 0, "bias") < 0 || sl_no_overlap(y, packed, 0, "packed") < 0 ||
        sl_no_overlap(y, addend, 1, "addend") < 0) {
        goto done;
    }
    if (run_dense(PyArray_DATA(x), m, k, PyArray_DATA(weight), n, packed != NULL ? PyArray_DATA(packed) : NULL,
                  bias != NULL ? PyArray_DATA(bias) : NULL, addend != NULL ? PyArray_DATA(addend) : NULL, activation,
                  PyArray_DATA(y), n_threads) == 0) {
        result = Py_NewRef((PyObject *)y);
    }
done:
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)weight);
    Py_XDECREF((PyObject *)bias);
    Py_XDECREF((PyObject *)packed);
    Py_XDECREF((PyObject *)addend);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(
    doc_dense_pack,
    "dense_pack(weight, out)\n--\n\nPack weights for dense into out; with out=None return the floats it needs.");

static PyObject *
py_dense_pack(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *weight_in, *out, *result = NULL;
    PyArrayObject *weight, *y = NULL;
    ptrdiff_t size = 0;

    if (!PyArg_ParseTuple(args, "OO:dense_pack", &weight_in, &out)) {
        return NULL;
    }
    weight = sl_array(weight_in, NPY_FLOAT, 2, "weight");
    if (weight == NULL || sl_raise(sl_dense_packed_size(PyArray_DIM(weight, 0), PyArray_DIM(weight, 1), &size),
                                   "weight: its packed form does not fit into memory") < 0) {
        goto done;
    }
    if (out == Py_None) {
        result = PyLong_FromSsize_t(size);
        goto done;
    }
    y = sl_array_inout(out, NPY_FLOAT, 1, "out");
    if (y == NULL || sl_shape_is(y, 1, &size, "out") < 0 || sl_no_overlap(y, weight, 0, "weight") < 0) {
        goto done;
    }
    if (sl_raise(
            sl_dense_pack_f32(PyArray_DATA(weight), PyArray_DIM(weight, 0), PyArray_DIM(weight, 1), PyArray_DATA(y)),
            "weight: cannot be packed") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)weight);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyMethodDef sl_nn_methods[] = {
    {"conv2d", (PyCFunction)(void (*)(void))py_conv2d, METH_VARARGS | METH_KEYWORDS, doc_conv2d},
    {"conv2d_packed_size", py_conv2d_packed_size, METH_VARARGS, doc_conv2d_packed_size},
    {"conv2d_pack", py_conv2d_pack, METH_VARARGS, doc_conv2d_pack},
    {"dense", (PyCFunction)(void (*)(void))py_dense, METH_VARARGS | METH_KEYWORDS, doc_dense},
    {"dense_pack", py_dense_pack, METH_VARARGS, doc_dense_pack},
    {NULL, NULL, 0, NULL},
};
