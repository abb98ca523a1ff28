/* Glue for sl_winograd.h. */
#include "py_nn.h"
#include "sl/sl_winograd.h"

PyDoc_STRVAR(
    doc_winograd_pays,
    "winograd_pays(weight, size, form, groups, back)\n--\n\n"
    "Whether a convolution of pictures of this size (or, with back=1, its adjoint) is faster by tiles; weight: its "
    "shape, form: stride, padding and dilation.");

static PyObject *
py_winograd_pays(PyObject *Py_UNUSED(self), PyObject *args)
{
    sl_conv_shape s = {.batch = 1};
    ptrdiff_t of_group = 0;
    int back = 0;

    if (!PyArg_ParseTuple(args, "(nnnn)(nn)(nnnnnnnn)ni:winograd_pays", &s.outputs, &of_group, &s.kernel_h, &s.kernel_w,
                          &s.height, &s.width, &s.stride_h, &s.stride_w, &s.top, &s.left, &s.bottom, &s.right,
                          &s.dilation_h, &s.dilation_w, &s.groups, &back)) {
        return NULL;
    }
    return PyBool_FromLong(sl_mul(of_group, s.groups, &s.channels) == 0 && sl_winograd_pays(&s, back));
}

PyDoc_STRVAR(doc_winograd_pack,
             "winograd_pack(weight, groups, back, variant, out)\n--\n\n"
             "Transform weights (O, C / groups, 3, 3) into out, for conv2d and conv_forward or, with "
             "back=1, conv_adjoint; with out=None return the floats it needs.");

static PyObject *
py_winograd_pack(PyObject *Py_UNUSED(self), PyObject *args)
{
    PyObject *w_in, *out, *result = NULL;
    PyArrayObject *weight, *y = NULL;
    sl_conv_shape s = {.batch = 1,
                       .height = 3,
                       .width = 3,
                       .kernel_h = 3,
                       .kernel_w = 3,
                       .stride_h = 1,
                       .stride_w = 1,
                       .dilation_h = 1,
                       .dilation_w = 1};
    sl_variant variant = {SL_SEEN_PLAIN, 0.0F};
    ptrdiff_t size = 0;
    int back, seen = 0;

    if (!PyArg_ParseTuple(args, "Oni(if)O:winograd_pack", &w_in, &s.groups, &back, &seen, &variant.gamma, &out)) {
        return NULL;
    }
    variant.seen = (sl_seen)seen;
    weight = sl_f32(w_in, 0, 0, "weight");
    if (weight == NULL) {
        return NULL;
    }
    if (PyArray_NDIM(weight) != 4 || PyArray_DIM(weight, 2) != 3 || PyArray_DIM(weight, 3) != 3) {
        PyErr_SetString(PyExc_ValueError, "weight must have the shape (outputs, channels per group, 3, 3)");
        goto done;
    }
    s.outputs = PyArray_DIM(weight, 0);
    if (sl_mul(PyArray_DIM(weight, 1), s.groups, &s.channels) < 0 ||
        sl_raise(sl_winograd_packed_size(&s, back, &size),
                 "weight: its sizes must be at least 1, groups divide its outputs, and the result fit into memory") <
            0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "groups: the product with the channels of weight does not fit");
        }
        goto done;
    }
    if (out == Py_None) {
        result = PyLong_FromSsize_t(size);
        goto done;
    }
    y = sl_array_inout(out, NPY_FLOAT, 1, "out");
    if (y != NULL && sl_shape_is(y, 1, &size, "out") == 0 && sl_no_overlap(y, weight, 0, "weight") == 0 &&
        sl_raise(sl_winograd_pack_f32(&s, back, PyArray_DATA(weight), variant, PyArray_DATA(y)),
                 "variant must be valid") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)weight);
    Py_XDECREF((PyObject *)y);
    return result;
}

PyMethodDef sl_winograd_methods[] = {
    {"winograd_pack", py_winograd_pack, METH_VARARGS, doc_winograd_pack},
    {"winograd_pays", py_winograd_pays, METH_VARARGS, doc_winograd_pays},
    {NULL, NULL, 0, NULL},
};
