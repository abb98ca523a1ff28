/* float32 numbers as sums of three bfloat16 numbers, and what the tiers with tiles say about themselves. */
#include "py_common.h"
#include "sl/sl_cpu.h"
#include "sl/sl_split.h"

PyDoc_STRVAR(doc_split, "split_f32(x)\n--\n\nBits of the parts (3, n) of x (n): hi, mid, lo; see sl_split.h.");

static PyObject *
py_split(PyObject *Py_UNUSED(self), PyObject *argument)
{
    PyArrayObject *x = sl_array(argument, NPY_FLOAT32, 1, "x"), *parts = NULL;
    npy_intp size[2] = {3, 0};

    if (x == NULL) {
        return NULL;
    }
    size[1] = PyArray_DIM(x, 0);
    parts = (PyArrayObject *)PyArray_SimpleNew(2, size, NPY_UINT16);
    if (parts != NULL) {
        const float *from = PyArray_DATA(x);
        uint16_t *to = PyArray_DATA(parts);
        Py_BEGIN_ALLOW_THREADS
        sl_split_f32(from, size[1], to, to + size[1], to + 2 * size[1]);
        Py_END_ALLOW_THREADS
    }
    Py_DECREF((PyObject *)x);
    return (PyObject *)parts;
}

PyDoc_STRVAR(doc_rates, "split_rates(seconds)\n--\n\nBytes of float32 per second that one core splits into panels, "
                        "left and right operands: "
                        "what a product on tiles costs beside its tiles.");

static PyObject *
py_rates(PyObject *Py_UNUSED(self), PyObject *args)
{
    double seconds, left = 0.0, right = 0.0;
    sl_status status;

    if (!PyArg_ParseTuple(args, "d:split_rates", &seconds)) {
        return NULL;
    }
    if (!(seconds >= 0.0 && seconds <= 10.0)) {
        PyErr_SetString(PyExc_ValueError, "seconds must lie in [0, 10]");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_split_rates(seconds, &left, &right);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "split_rates: the active tier has no tiles; set SEMANTICLENS_TIER to one that has") < 0) {
        return NULL;
    }
    return Py_BuildValue("(dd)", left, right);
}

PyDoc_STRVAR(doc_fault, "tier_fault(name)\n--\n\nWhy a tier cannot be used here, or None.");

static PyObject *
py_fault(PyObject *Py_UNUSED(self), PyObject *args)
{
    const char *name, *fault;

    if (!PyArg_ParseTuple(args, "s:tier_fault", &name)) {
        return NULL;
    }
    fault = sl_tier_fault(name);
    if (fault == NULL) {
        Py_RETURN_NONE;
    }
    return PyUnicode_FromString(fault);
}

PyMethodDef sl_split_methods[] = {
    {"split_f32", py_split, METH_O, doc_split},
    {"split_rates", py_rates, METH_VARARGS, doc_rates},
    {"tier_fault", py_fault, METH_VARARGS, doc_fault},
    {NULL, NULL, 0, NULL},
};
