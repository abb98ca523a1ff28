/* The few converters and the error map that all glue shares. */
#ifndef PY_COMMON_H
#define PY_COMMON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL sl_array_api
#ifndef SL_IMPORTS_NUMPY /* module.c alone defines it */
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "sl/sl_common.h"

/* New reference to `obj` as a C-contiguous, aligned, native array of `type` with `ndim` axes: borrowed where possible, copied where
 * layout asks for it, TypeError where values would have to be narrowed.  The message names `argument`. */
PyArrayObject *sl_array(PyObject *obj, int type, int ndim, const char *argument);

/* New reference to an array that the kernel updates in place: exactly this type and rank, C-contiguous and writable, or TypeError/ValueError
 * naming `argument`.  Never a copy. */
PyArrayObject *sl_array_inout(PyObject *obj, int type, int ndim, const char *argument);

/* 0, or -1 with ValueError naming both arguments and both lengths. */
int sl_same_length(PyArrayObject *a, int axis_a, PyArrayObject *b, int axis_b, const char *name_a, const char *name_b);

/* 0 for SL_OK, else -1 with the exception for `status`; `hint` says what the contract asks for. */
int sl_raise(sl_status status, const char *hint);

#endif
