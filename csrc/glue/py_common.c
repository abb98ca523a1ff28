#include "py_common.h"

PyArrayObject *
sl_array(PyObject *obj, int type, int ndim, const char *argument)
{
    PyArray_Descr *descr = PyArray_DescrFromType(type);
    PyObject *array;

    Py_XINCREF((PyObject *)descr);
    array = PyArray_FromAny(obj, descr, 0, 0, NPY_ARRAY_CARRAY_RO, NULL); /* steals one reference to descr */
    if (array == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {       /* NumPy's text does not name the argument */
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s must be an array of %R, or convert to it without loss, not %R", argument,
                     (PyObject *)descr,
                     PyArray_Check(obj) ? (PyObject *)PyArray_DESCR((PyArrayObject *)obj) : (PyObject *)Py_TYPE(obj));
    }
    Py_XDECREF((PyObject *)descr);
    if (array == NULL) {
        return NULL;
    }
    if (PyArray_NDIM((PyArrayObject *)array) != ndim) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimensions, not %d", argument, ndim,
                     PyArray_NDIM((PyArrayObject *)array));
        Py_CLEAR(array);
    }
    return (PyArrayObject *)array;
}

PyArrayObject *
sl_array_inout(PyObject *obj, int type, int ndim, const char *argument)
{
    PyArrayObject *array = (PyArrayObject *)obj;

    if (!PyArray_Check(obj) || PyArray_TYPE(array) != type || !PyArray_ISCARRAY(array)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a writable, C-contiguous array of the exact type: it is updated in place", argument);
        return NULL;
    }
    if (PyArray_NDIM(array) != ndim) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimensions, not %d", argument, ndim, PyArray_NDIM(array));
        return NULL;
    }
    Py_INCREF(obj);
    return array;
}

int
sl_same_length(PyArrayObject *a, int axis_a, PyArrayObject *b, int axis_b, const char *name_a, const char *name_b)
{
    const npy_intp n_a = PyArray_DIM(a, axis_a), n_b = PyArray_DIM(b, axis_b);

    if (n_a != n_b) {
        PyErr_Format(PyExc_ValueError, "%s has %zd entries along axis %d, but %s has %zd along axis %d", name_a,
                     (Py_ssize_t)n_a, axis_a, name_b, (Py_ssize_t)n_b, axis_b);
        return -1;
    }
    return 0;
}

int
sl_raise(sl_status status, const char *hint)
{
    switch (status) {
    case SL_OK:
        return 0;
    case SL_ERR_NOMEM:
        PyErr_NoMemory();
        return -1;
    case SL_ERR_NUMERIC:
        PyErr_SetString(PyExc_ArithmeticError, hint);
        return -1;
    case SL_ERR_ARG:
    case SL_ERR_OVERFLOW:
        break;
    }
    PyErr_SetString(PyExc_ValueError, hint);
    return -1;
}
