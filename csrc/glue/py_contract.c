/* Glue for sl_contract.h: convolution and dense layers.  Batched products: py_matmul.c. */
#include "py_nn.h"
#include "sl/sl_contract.h"
#include "sl/sl_winograd.h"

static const double BUDGET = 2e10; /* multiply-adds between two looks at pending signals */

/* A finish as Python gives it: None, or (addend, numerator, eps, clip, factor, part, gamma, scale, sum, mask, below). */
typedef struct {
    PyArrayObject *arrays[5];
    sl_finish finish;
    const sl_finish *used;
} finish_args;

enum { ADDEND, NUMERATOR, FACTOR, SUM, MASK };
static const char *const finish_names[] = {"addend", "numerator", "factor", "sum", "mask"};

static int
read_finish(PyObject *obj, finish_args *f)
{
    PyObject *in[5] = {Py_None, Py_None, Py_None, Py_None, Py_None};
    const float *data[5] = {NULL};
    int seen = 0;

    *f = (finish_args){.finish = {.scale = 1.0F}};
    if (obj == Py_None) {
        return 0;
    }
    if (!PyTuple_Check(obj) || !PyArg_ParseTuple(obj, "OOfiOiffOOf:finish", &in[ADDEND], &in[NUMERATOR], &f->finish.eps,
                                                 &f->finish.clip, &in[FACTOR], &seen, &f->finish.part.gamma,
                                                 &f->finish.scale, &in[SUM], &in[MASK], &f->finish.below)) {
        return -1;
    }
    for (int i = 0; i < 5; i++) {
        f->arrays[i] = sl_f32(in[i], 0, 1, finish_names[i]);
        if (f->arrays[i] == NULL && PyErr_Occurred()) {
            return -1;
        }
        data[i] = f->arrays[i] != NULL ? PyArray_DATA(f->arrays[i]) : NULL;
    }
    f->finish.part.seen = (sl_seen)seen;
    f->finish.addend = data[ADDEND];
    f->finish.numerator = data[NUMERATOR];
    f->finish.factor = data[FACTOR];
    f->finish.sum = data[SUM];
    f->finish.mask = data[MASK];
    f->used = &f->finish;
    return 0;
}

/* 0 if the finish's arrays have the result's shape and none shares its memory. */
static int
check_finish(const finish_args *f, PyArrayObject *y)
{
    for (int i = 0; i < 5; i++) {
        if (sl_shape_is(f->arrays[i], PyArray_NDIM(y), PyArray_DIMS(y), finish_names[i]) < 0 ||
            sl_no_overlap(y, f->arrays[i], 0, finish_names[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static void
drop_finish(finish_args *f)
{
    for (int i = 0; i < 5; i++) {
        Py_XDECREF((PyObject *)f->arrays[i]);
    }
}

/* The finish for the pictures (or rows) from number `first` on, `floats` of the result each. */
static const sl_finish *
shift_finish(const finish_args *f, npy_intp first, npy_intp floats, sl_finish *shifted)
{
    const float **arrays[] = {&shifted->addend, &shifted->numerator, &shifted->factor, &shifted->sum, &shifted->mask};

    if (f->used == NULL) {
        return NULL;
    }
    *shifted = f->finish;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (*arrays[i] != NULL) {
            *arrays[i] += first * floats;
        }
    }
    return shifted;
}

/* Arguments that the four functions below have in common. */
typedef struct {
    PyArrayObject *left, *weight, *bias, *packed, *y;
    finish_args finish;
    sl_variant variant, part;
    int n_threads;
} call;

static void
drop_call(call *c)
{
    Py_XDECREF((PyObject *)c->left);
    Py_XDECREF((PyObject *)c->weight);
    Py_XDECREF((PyObject *)c->bias);
    Py_XDECREF((PyObject *)c->packed);
    Py_XDECREF((PyObject *)c->y);
    drop_finish(&c->finish);
}

static int
open_result(call *c, PyObject *out, int ndim, const npy_intp *dims)
{
    c->y = sl_f32_out(out, ndim, dims);
    return c->y == NULL || sl_no_overlap(c->y, c->left, 0, "x") < 0 ||
                   sl_no_overlap(c->y, c->weight, 0, "weight") < 0 || sl_no_overlap(c->y, c->bias, 0, "bias") < 0 ||
                   sl_no_overlap(c->y, c->packed, 0, "packed") < 0 || check_finish(&c->finish, c->y) < 0
               ? -1
               : 0;
}

static const float *
data_of(PyArrayObject *a)
{
    return a != NULL ? PyArray_DATA(a) : NULL;
}

static int
is_4d(PyArrayObject *a, const char *argument)
{
    if (a != NULL && PyArray_NDIM(a) != 4) {
        PyErr_Format(PyExc_ValueError, "%s must have 4 dimensions, not %d", argument, PyArray_NDIM(a));
    }
    return a != NULL && PyArray_NDIM(a) == 4;
}

/* Fills the shape's sizes from an input (B, C, H, W) and a weight (O, C / G, kh, kw). */
static int
conv_shape(const npy_intp *x, PyArrayObject *weight, sl_conv_shape *s, npy_intp *out_h, npy_intp *out_w)
{
    const npy_intp *w = PyArray_DIMS(weight);
    ptrdiff_t h, v;

    s->batch = x[0], s->channels = x[1], s->height = x[2], s->width = x[3];
    s->outputs = w[0], s->kernel_h = w[2], s->kernel_w = w[3];
    if (s->groups < 1 || s->channels % s->groups != 0 || s->channels / s->groups != w[1]) {
        PyErr_Format(PyExc_ValueError, "weight has %zd input channels per group, but the input has %zd in %zd groups",
                     (Py_ssize_t)w[1], (Py_ssize_t)s->channels, (Py_ssize_t)s->groups);
        return -1;
    }
    if (sl_raise(sl_conv_output_size(s, &h, &v),
                 "the kernel must fit into the padded picture, sizes, strides and dilations be at least 1, padding at "
                 "least 0, groups divide the outputs, and all arrays fit into memory") < 0) {
        return -1;
    }
    *out_h = h, *out_w = v;
    return 0;
}

static int
run_conv(const sl_conv_shape *shape, const call *c, int back, npy_intp from_floats, npy_intp to_floats)
{
    const npy_intp batch = shape->batch;
    const double work = (double)(back ? from_floats : to_floats) * (double)PyArray_SIZE(c->weight) /
                        (double)(shape->outputs > 0 ? shape->outputs : 1);
    const npy_intp step = sl_per_call(batch, work, BUDGET);
    const float *packed = data_of(c->packed), *w = PyArray_DATA(c->weight), *bias = data_of(c->bias);
    sl_conv_shape s = *shape;

    for (npy_intp i = 0; i < batch; i += step) {
        const float *x = (const float *)PyArray_DATA(c->left) + i * from_floats;
        float *y = (float *)PyArray_DATA(c->y) + i * to_floats;
        sl_finish shifted;
        const sl_finish *finish = shift_finish(&c->finish, i, to_floats, &shifted);
        sl_status status;
        s.batch = batch - i < step ? batch - i : step;
        Py_BEGIN_ALLOW_THREADS
        status = back ? sl_conv_adjoint_f32(&s, x, w, packed, c->variant, c->part, finish, y, c->n_threads)
                      : sl_conv_forward_f32(&s, x, w, packed, c->variant, c->part, bias, finish, y, c->n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "convolution: variant, part and n_threads must be valid, and packed "
                             "made for this shape, variant and instruction-set tier") < 0 ||
            PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_conv_forward,
             "conv_forward(x, weight, bias, form, groups, variant, part, finish=None, out=None, n_threads=1, "
             "packed=None)\n--\n\n"
             "Convolution of a weight variant; see semanticlens._kernels.contract.conv_forward.");

static PyObject *
py_conv_forward(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x",    "weight", "bias", "form",      "groups", "variant",
                            "part", "finish", "out",  "n_threads", "packed", NULL};
    PyObject *x_in, *w_in, *bias_in, *finish = Py_None, *out = Py_None, *packed_in = Py_None, *result = NULL;
    call c = {.n_threads = 1};
    sl_conv_shape s = {0};
    npy_intp dims[4], h, w;
    int seen = 0, part = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO(nnnnnnnn)n(if)i|OOiO:conv_forward", names, &x_in, &w_in,
                                     &bias_in, &s.stride_h, &s.stride_w, &s.top, &s.left, &s.bottom, &s.right,
                                     &s.dilation_h, &s.dilation_w, &s.groups, &seen, &c.variant.gamma, &part, &finish,
                                     &out, &c.n_threads, &packed_in)) {
        return NULL;
    }
    c.variant.seen = (sl_seen)seen, c.part.seen = (sl_seen)part;
    c.left = sl_f32(x_in, 0, 0, "x");
    c.weight = c.left != NULL ? sl_f32(w_in, 0, 0, "weight") : NULL;
    c.bias = c.weight != NULL ? sl_f32(bias_in, 1, 1, "bias") : NULL;
    c.packed = PyErr_Occurred() == NULL ? sl_f32(packed_in, 1, 1, "packed") : NULL;
    if (PyErr_Occurred() || read_finish(finish, &c.finish) < 0 || !is_4d(c.left, "x") || !is_4d(c.weight, "weight") ||
        conv_shape(PyArray_DIMS(c.left), c.weight, &s, &h, &w) < 0 || sl_shape_is(c.bias, 1, &s.outputs, "bias") < 0) {
        goto done;
    }
    if (c.packed != NULL &&
        (PyArray_SIZE(c.packed) < 16 ||
         sl_conv_forward_packed_check(&s, c.variant, PyArray_DATA(c.packed), PyArray_SIZE(c.packed)) != SL_OK)) {
        PyErr_SetString(
            PyExc_ValueError,
            "packed was not made by pack_conv2d or winograd.pack for a weight of this shape and variant with "
            "this instruction-set tier: pack it again");
        goto done;
    }
    dims[0] = s.batch, dims[1] = s.outputs, dims[2] = h, dims[3] = w;
    if (open_result(&c, out, 4, dims) == 0 &&
        run_conv(&s, &c, 0, s.channels * s.height * s.width, s.outputs * h * w) == 0) {
        result = Py_NewRef((PyObject *)c.y);
    }
done:
    drop_call(&c);
    return result;
}

PyDoc_STRVAR(
    doc_conv_adjoint,
    "conv_adjoint(s, weight, size, form, groups, variant, part, packed=None, finish=None, out=None, n_threads=1)\n"
    "--\n\nAdjoint of a convolution; see semanticlens._kernels.contract.conv_adjoint.");

static PyObject *
py_conv_adjoint(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"s",    "weight", "size",   "form", "groups",    "variant",
                            "part", "packed", "finish", "out",  "n_threads", NULL};
    PyObject *s_in, *w_in, *packed_in = Py_None, *finish = Py_None, *out = Py_None, *result = NULL;
    call c = {.n_threads = 1};
    sl_conv_shape s = {0};
    npy_intp dims[4], given[4], h, w;
    int seen = 0, part = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO(nn)(nnnnnnnn)n(if)i|OOOi:conv_adjoint", names, &s_in, &w_in,
                                     &dims[2], &dims[3], &s.stride_h, &s.stride_w, &s.top, &s.left, &s.bottom, &s.right,
                                     &s.dilation_h, &s.dilation_w, &s.groups, &seen, &c.variant.gamma, &part,
                                     &packed_in, &finish, &out, &c.n_threads)) {
        return NULL;
    }
    c.variant.seen = (sl_seen)seen, c.part.seen = (sl_seen)part;
    c.left = sl_f32(s_in, 0, 0, "s");
    c.weight = c.left != NULL ? sl_f32(w_in, 0, 0, "weight") : NULL;
    c.packed = c.weight != NULL ? sl_f32(packed_in, 1, 1, "packed") : NULL;
    if (PyErr_Occurred() || read_finish(finish, &c.finish) < 0 || !is_4d(c.left, "s") || !is_4d(c.weight, "weight")) {
        goto done;
    }
    dims[0] = PyArray_DIM(c.left, 0);
    if (s.groups < 1 || __builtin_mul_overflow(PyArray_DIM(c.weight, 1), s.groups, &dims[1])) {
        PyErr_SetString(PyExc_ValueError, "groups must be at least 1, and the input fit into memory");
        goto done;
    }
    if (conv_shape(dims, c.weight, &s, &h, &w) < 0) {
        goto done;
    }
    given[0] = s.batch, given[1] = s.outputs, given[2] = h, given[3] = w;
    if (sl_shape_is(c.left, 4, given, "s") < 0) {
        goto done;
    }
    if (c.packed != NULL &&
        (PyArray_SIZE(c.packed) < 16 ||
         sl_conv_adjoint_packed_check(&s, c.variant, PyArray_DATA(c.packed), PyArray_SIZE(c.packed)) != SL_OK)) {
        PyErr_SetString(PyExc_ValueError,
                        "packed was not made by pack_conv_adjoint for a weight of this shape, form and "
                        "variant with this instruction-set tier: pack it again");
        goto done;
    }
    if (open_result(&c, out, 4, dims) == 0 &&
        run_conv(&s, &c, 1, s.outputs * h * w, s.channels * s.height * s.width) == 0) {
        result = Py_NewRef((PyObject *)c.y);
    }
done:
    drop_call(&c);
    return result;
}

PyDoc_STRVAR(doc_conv_adjoint_pack, "conv_adjoint_pack(weight, size, form, groups, variant, out)\n--\n\n"
                                    "Pack weights for conv_adjoint into out; with out=None return the floats it needs, "
                                    "0 where packing brings nothing.");

static PyObject *
py_conv_adjoint_pack(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *w_in, *out, *result = NULL;
    PyArrayObject *weight, *y = NULL;
    sl_variant variant = {SL_SEEN_PLAIN, 0.0F};
    sl_conv_shape s = {0};
    npy_intp dims[4] = {1}, h, w;
    ptrdiff_t size = 0;
    int seen = 0;

    if (!PyArg_ParseTuple(args, "O(nn)(nnnnnnnn)n(if)O:conv_adjoint_pack", &w_in, &dims[2], &dims[3], &s.stride_h,
                          &s.stride_w, &s.top, &s.left, &s.bottom, &s.right, &s.dilation_h, &s.dilation_w, &s.groups,
                          &seen, &variant.gamma, &out)) {
        return NULL;
    }
    variant.seen = (sl_seen)seen;
    weight = sl_f32(w_in, 0, 0, "weight");
    if (!is_4d(weight, "weight")) {
        goto done;
    }
    if (s.groups < 1 || __builtin_mul_overflow(PyArray_DIM(weight, 1), s.groups, &dims[1])) {
        PyErr_SetString(PyExc_ValueError, "groups must be at least 1, and the input fit into memory");
        goto done;
    }
    if (conv_shape(dims, weight, &s, &h, &w) < 0 ||
        sl_raise(sl_conv_adjoint_packed_size(&s, &size), "weight: its packed form does not fit into memory") < 0) {
        goto done;
    }
    if (out == Py_None) {
        result = PyLong_FromSsize_t(size);
        goto done;
    }
    y = sl_array_inout(out, NPY_FLOAT, 1, "out");
    if (y != NULL && sl_shape_is(y, 1, &size, "out") == 0 && sl_no_overlap(y, weight, 0, "weight") == 0 &&
        sl_raise(sl_conv_adjoint_pack_f32(&s, PyArray_DATA(weight), variant, PyArray_DATA(y)),
                 "weight: a depthwise convolution has no packed form, and the variant must be valid") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)weight);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyDoc_STRVAR(doc_conv_parameter, "conv_parameter(s, x, kernel, form, groups, n_threads=1)\n--\n\n"
                                 "Gradient of <s, conv(x)> by the weight; see semanticlens._kernels.contract.");

static PyObject *
py_conv_parameter(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *s_in, *x_in, *result = NULL;
    PyArrayObject *left, *x = NULL, *f = NULL;
    sl_conv_shape s = {0};
    npy_intp given[4], dims[4];
    ptrdiff_t h = 0, w = 0;
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OO(nn)(nnnnnnnn)n|i:conv_parameter", &s_in, &x_in, &s.kernel_h, &s.kernel_w,
                          &s.stride_h, &s.stride_w, &s.top, &s.left, &s.bottom, &s.right, &s.dilation_h, &s.dilation_w,
                          &s.groups, &n_threads)) {
        return NULL;
    }
    left = sl_f32(s_in, 0, 0, "s");
    x = left != NULL ? sl_f32(x_in, 0, 0, "x") : NULL;
    if (!is_4d(left, "s") || !is_4d(x, "x")) {
        goto done;
    }
    s.batch = PyArray_DIM(x, 0), s.channels = PyArray_DIM(x, 1), s.height = PyArray_DIM(x, 2);
    s.width = PyArray_DIM(x, 3), s.outputs = PyArray_DIM(left, 1);
    if (sl_raise(sl_conv_output_size(&s, &h, &w), "the kernel must fit into the padded picture, groups divide channels "
                                                  "and outputs, and all arrays fit into memory") < 0) {
        goto done;
    }
    given[0] = s.batch, given[1] = s.outputs, given[2] = h, given[3] = w;
    dims[0] = s.outputs, dims[1] = s.channels / s.groups, dims[2] = s.kernel_h, dims[3] = s.kernel_w;
    if (sl_shape_is(left, 4, given, "s") < 0) {
        goto done;
    }
    f = (PyArrayObject *)PyArray_SimpleNew(4, dims, NPY_FLOAT);
    if (f == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_conv_parameter_f32(&s, PyArray_DATA(left), PyArray_DATA(x), PyArray_DATA(f), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "conv_parameter: n_threads must be at least 1") == 0 && PyErr_CheckSignals() == 0) {
        result = Py_NewRef((PyObject *)f);
    }
done:
    Py_XDECREF((PyObject *)left);
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)f);
    return result;
}

PyDoc_STRVAR(doc_dense_contract,
             "dense_contract(x, weight, bias, back, variant, part, finish=None, out=None, n_threads=1)\n--\n\n"
             "Forward (back=0) or adjoint (back=1) of a dense layer; see semanticlens._kernels.contract.");

static int
run_dense(const call *c, int back, npy_intp m, npy_intp n, npy_intp k)
{
    const npy_intp step = sl_per_call(m, (double)n * (double)k, BUDGET);
    const npy_intp from = back ? n : k, to = back ? k : n;
    const float *w = PyArray_DATA(c->weight), *bias = data_of(c->bias);

    for (npy_intp i = 0; i < m; i += step) {
        const npy_intp rows = m - i < step ? m - i : step;
        const float *x = (const float *)PyArray_DATA(c->left) + i * from;
        float *y = (float *)PyArray_DATA(c->y) + i * to;
        sl_finish shifted;
        const sl_finish *finish = shift_finish(&c->finish, i, to, &shifted);
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = back ? sl_dense_adjoint_f32(x, rows, n, w, k, c->variant, c->part, finish, y, c->n_threads)
                      : sl_dense_forward_f32(x, rows, k, w, n, c->variant, c->part, bias, finish, y, c->n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "dense: variant, part and n_threads must be valid, and arrays fit into memory") < 0 ||
            PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
py_dense_contract(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "weight", "bias", "back", "variant", "part", "finish", "out", "n_threads", NULL};
    PyObject *x_in, *w_in, *bias_in, *finish = Py_None, *out = Py_None, *result = NULL;
    call c = {.n_threads = 1};
    npy_intp dims[NPY_MAXDIMS], n, k, m = 1;
    int seen = 0, part = 0, back = 0, last;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOi(if)i|OOi:dense_contract", names, &x_in, &w_in, &bias_in, &back,
                                     &seen, &c.variant.gamma, &part, &finish, &out, &c.n_threads)) {
        return NULL;
    }
    c.variant.seen = (sl_seen)seen, c.part.seen = (sl_seen)part;
    c.left = sl_f32(x_in, 1, 0, "x");
    c.weight = c.left != NULL ? sl_f32(w_in, 2, 0, "weight") : NULL;
    c.bias = c.weight != NULL ? sl_f32(bias_in, 1, 1, "bias") : NULL;
    if (PyErr_Occurred() || read_finish(finish, &c.finish) < 0) {
        goto done;
    }
    last = PyArray_NDIM(c.left) - 1;
    n = PyArray_DIM(c.weight, 0);
    k = PyArray_DIM(c.weight, 1);
    if (PyArray_NDIM(c.weight) != 2 || PyArray_DIM(c.left, last) != (back ? n : k)) {
        PyErr_Format(PyExc_ValueError, "weight must have shape (outputs, inputs) with %zd %s, as the last axis of x",
                     (Py_ssize_t)PyArray_DIM(c.left, last), back ? "outputs" : "inputs");
        goto done;
    }
    for (int i = 0; i < last; i++) {
        dims[i] = PyArray_DIM(c.left, i);
        m *= dims[i];
    }
    dims[last] = back ? k : n;
    if (sl_shape_is(c.bias, 1, &n, "bias") == 0 && open_result(&c, out, last + 1, dims) == 0 &&
        run_dense(&c, back, m, n, k) == 0) {
        result = Py_NewRef((PyObject *)c.y);
    }
done:
    drop_call(&c);
    return result;
}

PyDoc_STRVAR(doc_dense_parameter, "dense_parameter(s, x, n_threads=1)\n--\n\n"
                                  "Gradient of <s, x W^T> by W; s and x share all axes but the last.");

static PyObject *
py_dense_parameter(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *s_in, *x_in, *result = NULL;
    PyArrayObject *s, *x = NULL, *f = NULL;
    npy_intp dims[2], m = 1;
    int n_threads = 1, last;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OO|i:dense_parameter", &s_in, &x_in, &n_threads)) {
        return NULL;
    }
    s = sl_f32(s_in, 1, 0, "s");
    x = s != NULL ? sl_f32(x_in, 1, 0, "x") : NULL;
    if (x == NULL) {
        goto done;
    }
    last = PyArray_NDIM(s) - 1;
    if (PyArray_NDIM(x) != last + 1 || !PyArray_CompareLists(PyArray_DIMS(s), PyArray_DIMS(x), last)) {
        PyErr_SetString(PyExc_ValueError, "s and x must share all axes but the last");
        goto done;
    }
    for (int i = 0; i < last; i++) {
        m *= PyArray_DIM(s, i);
    }
    dims[0] = PyArray_DIM(s, last), dims[1] = PyArray_DIM(x, last);
    f = (PyArrayObject *)PyArray_SimpleNew(2, dims, NPY_FLOAT);
    if (f == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_dense_parameter_f32(PyArray_DATA(s), m, dims[0], PyArray_DATA(x), dims[1], PyArray_DATA(f), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "dense_parameter: n_threads must be at least 1") == 0 && PyErr_CheckSignals() == 0) {
        result = Py_NewRef((PyObject *)f);
    }
done:
    Py_XDECREF((PyObject *)s);
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)f);
    return result;
}

PyDoc_STRVAR(doc_channel_sum, "channel_sum(s, x=None, n_threads=1)\n--\n\n"
                              "Sums of s (B, C, ...), or of s * x, per channel, in double.");

static PyObject *
py_channel_sum(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *s_in, *x_in = Py_None, *result = NULL;
    PyArrayObject *s, *x = NULL, *f = NULL;
    npy_intp channels, n = 1;
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "O|Oi:channel_sum", &s_in, &x_in, &n_threads)) {
        return NULL;
    }
    s = sl_f32(s_in, 2, 0, "s");
    x = s != NULL ? sl_f32(x_in, 2, 1, "x") : NULL;
    if (PyErr_Occurred() || sl_shape_is(x, PyArray_NDIM(s), PyArray_DIMS(s), "x") < 0) {
        goto done;
    }
    channels = PyArray_DIM(s, 1);
    for (int i = 2; i < PyArray_NDIM(s); i++) {
        n *= PyArray_DIM(s, i);
    }
    f = (PyArrayObject *)PyArray_SimpleNew(1, &channels, NPY_FLOAT);
    if (f == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status =
        sl_channel_sum_f32(PyArray_DATA(s), data_of(x), PyArray_DIM(s, 0), channels, n, PyArray_DATA(f), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "channel_sum: n_threads must be at least 1") == 0) {
        result = Py_NewRef((PyObject *)f);
    }
done:
    Py_XDECREF((PyObject *)s);
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)f);
    return result;
}

#define SL_WITH_KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

PyMethodDef sl_contract_methods[] = {
    {"channel_sum", py_channel_sum, METH_VARARGS, doc_channel_sum},
    {"conv_adjoint", SL_WITH_KEYWORDS(py_conv_adjoint), doc_conv_adjoint},
    {"conv_adjoint_pack", py_conv_adjoint_pack, METH_VARARGS, doc_conv_adjoint_pack},
    {"conv_forward", SL_WITH_KEYWORDS(py_conv_forward), doc_conv_forward},
    {"conv_parameter", py_conv_parameter, METH_VARARGS, doc_conv_parameter},
    {"dense_contract", SL_WITH_KEYWORDS(py_dense_contract), doc_dense_contract},
    {"dense_parameter", py_dense_parameter, METH_VARARGS, doc_dense_parameter},
    {NULL, NULL, 0, NULL},
};
