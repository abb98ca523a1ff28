/* Converters that the glue of the network kernels shares. */
#ifndef PY_NN_H
#define PY_NN_H

#include "py_common.h"

/* New reference to `obj` as a C-contiguous float32 array of any rank >= least; None gives NULL without an error where `optional`. */
PyArrayObject *sl_f32(PyObject *obj, int least, int optional, const char *argument);

/* New reference to the array to write: a fresh one where `out` is None, else `out` itself, which must be writable, C-contiguous float32 of this shape. */
PyArrayObject *sl_f32_out(PyObject *out, int ndim, const npy_intp *dims);

/* 0, or -1 with ValueError if `out` shares memory with `in`; may_be: it may be exactly `in`.  `in` may be NULL. */
int sl_no_overlap(PyArrayObject *out, PyArrayObject *in, int may_be, const char *argument);

/* 0, or -1 with ValueError naming the argument if `a` (or NULL) is not of this shape. */
int sl_shape_is(PyArrayObject *a, int ndim, const npy_intp *dims, const char *argument);

/* Pictures (or rows) per kernel call so that signals are looked at about once per `budget` operations; at least 1. */
npy_intp sl_per_call(npy_intp n, double operations, double budget);

#endif
