/* Glue for sl_adjoint.h. */
#include "py_nn.h"
#include "sl/sl_adjoint.h"

PyDoc_STRVAR(doc_activate_adjoint, "activate_adjoint(saved, s, activation, out=None, n_threads=1)\n--\n\n"
                                   "Derivative of an activation times s; see semanticlens._kernels.adjoint.");

static PyObject *
py_activate_adjoint(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *saved_in, *s_in, *out = Py_None, *result = NULL;
    PyArrayObject *saved, *s = NULL, *g = NULL;
    int activation, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OOi|Oi:activate_adjoint", &saved_in, &s_in, &activation, &out, &n_threads)) {
        return NULL;
    }
    saved = sl_f32(saved_in, 0, 0, "saved");
    s = saved != NULL ? sl_f32(s_in, 0, 0, "s") : NULL;
    if (s == NULL || sl_shape_is(s, PyArray_NDIM(saved), PyArray_DIMS(saved), "s") < 0) {
        goto done;
    }
    g = sl_f32_out(out, PyArray_NDIM(s), PyArray_DIMS(s));
    if (g == NULL || sl_no_overlap(g, s, 1, "s") < 0 || sl_no_overlap(g, saved, 0, "saved") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_activate_adjoint_f32(PyArray_DATA(saved), PyArray_DATA(s), PyArray_SIZE(s), (sl_activation)activation,
                                     PyArray_DATA(g), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "activation must be known and n_threads at least 1") == 0) {
        result = Py_NewRef((PyObject *)g);
    }
done:
    Py_XDECREF((PyObject *)saved);
    Py_XDECREF((PyObject *)s);
    Py_XDECREF((PyObject *)g);
    return result;
}

PyDoc_STRVAR(doc_pool2d_adjoint, "pool2d_adjoint(s, x, size, kind, kernel, stride, padding, dilation, ceil_mode, "
                                 "count_include_pad, n_threads=1)\n--\n\n"
                                 "Adjoint of pool2d; x may be None for means.");

static PyObject *
py_pool2d_adjoint(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *s_in, *x_in, *result = NULL;
    PyArrayObject *s, *x = NULL, *g = NULL;
    sl_pool_shape p = {0};
    npy_intp dims[4], given[4];
    ptrdiff_t h = 0, w = 0;
    int kind, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "OO(nn)i(nn)(nn)(nnnn)(nn)pp|i:pool2d_adjoint", &s_in, &x_in, &p.height, &p.width,
                          &kind, &p.kernel_h, &p.kernel_w, &p.stride_h, &p.stride_w, &p.top, &p.left, &p.bottom,
                          &p.right, &p.dilation_h, &p.dilation_w, &p.ceil_mode, &p.count_include_pad, &n_threads)) {
        return NULL;
    }
    s = sl_f32(s_in, 4, 0, "s");
    x = s != NULL ? sl_f32(x_in, 4, 1, "x") : NULL;
    if (PyErr_Occurred()) {
        goto done;
    }
    p.planes = PyArray_DIM(s, 0) * PyArray_DIM(s, 1);
    if (sl_raise(sl_pool_output_size(&p, &h, &w), "the window must fit into the padded picture") < 0) {
        goto done;
    }
    given[0] = dims[0] = PyArray_DIM(s, 0), given[1] = dims[1] = PyArray_DIM(s, 1);
    given[2] = h, given[3] = w, dims[2] = p.height, dims[3] = p.width;
    if (sl_shape_is(s, 4, given, "s") < 0 || sl_shape_is(x, 4, dims, "x") < 0) {
        goto done;
    }
    if (x == NULL && kind == SL_POOL_MAX) {
        PyErr_SetString(PyExc_ValueError, "x must be given for a maximum: it says where the maxima lie");
        goto done;
    }
    g = (PyArrayObject *)PyArray_SimpleNew(4, dims, NPY_FLOAT);
    if (g == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_pool2d_adjoint_f32(&p, x != NULL ? PyArray_DATA(x) : NULL, PyArray_DATA(s), (sl_pool_kind)kind,
                                   PyArray_DATA(g), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "kind must be known and n_threads at least 1") == 0) {
        result = Py_NewRef((PyObject *)g);
    }
done:
    Py_XDECREF((PyObject *)s);
    Py_XDECREF((PyObject *)x);
    Py_XDECREF((PyObject *)g);
    return result;
}

PyDoc_STRVAR(doc_adaptive_adjoint,
             "adaptive_avg_pool2d_adjoint(s, size, n_threads=1)\n--\n\nAdjoint of adaptive_avg_pool2d.");

static PyObject *
py_adaptive_adjoint(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *s_in, *result = NULL;
    PyArrayObject *s, *g = NULL;
    npy_intp dims[4];
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTuple(args, "O(nn)|i:adaptive_avg_pool2d_adjoint", &s_in, &dims[2], &dims[3], &n_threads)) {
        return NULL;
    }
    s = sl_f32(s_in, 4, 0, "s");
    if (s == NULL) {
        return NULL;
    }
    dims[0] = PyArray_DIM(s, 0), dims[1] = PyArray_DIM(s, 1);
    if (dims[2] < 1 || dims[3] < 1) {
        PyErr_SetString(PyExc_ValueError, "size must be positive");
        goto done;
    }
    g = (PyArrayObject *)PyArray_SimpleNew(4, dims, NPY_FLOAT);
    if (g == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_adaptive_mean_adjoint_f32(PyArray_DATA(s), dims[0] * dims[1], dims[2], dims[3], PyArray_DIM(s, 2),
                                          PyArray_DIM(s, 3), PyArray_DATA(g), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "n_threads must be at least 1") == 0) {
        result = Py_NewRef((PyObject *)g);
    }
done:
    Py_XDECREF((PyObject *)s);
    Py_XDECREF((PyObject *)g);
    return result;
}

PyMethodDef sl_adjoint_methods[] = {
    {"activate_adjoint", py_activate_adjoint, METH_VARARGS, doc_activate_adjoint},
    {"adaptive_avg_pool2d_adjoint", py_adaptive_adjoint, METH_VARARGS, doc_adaptive_adjoint},
    {"pool2d_adjoint", py_pool2d_adjoint, METH_VARARGS, doc_pool2d_adjoint},
    {NULL, NULL, 0, NULL},
};
