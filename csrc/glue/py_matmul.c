/* Glue for the batched products of sl_contract.h. */
#include "py_nn.h"
#include "sl/sl_contract.h"

static const double BUDGET = 2e10; /* multiply-adds between two looks at pending signals */

/* A stack of matrices as the kernel sees it: two batch axes, rows and columns. */
typedef struct {
    npy_intp size[4];
    sl_strides strides;
} stack;

/* 0 if `a` can be walked as it is: two to four axes, strides of whole floats, one of the last two axes dense. */
static int
view_stack(PyArrayObject *a, stack *s)
{
    const int nd = PyArray_NDIM(a);
    npy_intp step[4] = {0};

    for (int i = 0; i < 4; i++) {
        const int axis = i - (4 - nd);
        s->size[i] = axis < 0 ? 1 : PyArray_DIM(a, axis);
        step[i] = axis < 0 || s->size[i] <= 1 ? 0 : PyArray_STRIDE(a, axis) / (npy_intp)sizeof(float);
        if (axis >= 0 && (PyArray_STRIDE(a, axis) % (npy_intp)sizeof(float) != 0 || PyArray_STRIDE(a, axis) < 0)) {
            return -1;
        }
    }
    s->strides = (sl_strides){.outer = step[0], .inner = step[1]};
    if (PyArray_SIZE(a) == 0) { /* strides of nothing mean nothing */
        s->strides.row = s->size[3];
        return 0;
    }
    if (step[3] == 1 || s->size[3] <= 1) {
        s->strides.row = step[2];
        return 0;
    }
    s->strides.row = step[3];
    s->strides.transposed = 1;
    return step[2] == 1 || s->size[2] <= 1 ? 0 : -1;
}

/* New reference to a float32 stack, copied where its layout asks for it. */
static PyArrayObject *
matrix_stack(PyObject *obj, const char *argument, stack *s)
{
    PyArrayObject *a;

    if (!PyArray_Check(obj) || PyArray_TYPE((PyArrayObject *)obj) != NPY_FLOAT ||
        PyArray_NDIM((PyArrayObject *)obj) < 2 || PyArray_NDIM((PyArrayObject *)obj) > 4) {
        PyErr_Format(PyExc_TypeError, "%s must be a float32 array with two to four axes", argument);
        return NULL;
    }
    a = (PyArrayObject *)Py_NewRef(obj);
    if (!PyArray_ISALIGNED(a) || !PyArray_ISNOTSWAPPED(a) || view_stack(a, s) < 0) {
        Py_DECREF(a);
        a = (PyArrayObject *)PyArray_FromAny(obj, PyArray_DescrFromType(NPY_FLOAT), 0, 0, NPY_ARRAY_CARRAY_RO, NULL);
        if (a != NULL && view_stack(a, s) < 0) {
            PyErr_Format(PyExc_ValueError, "%s cannot be laid out", argument);
            Py_CLEAR(a);
        }
    }
    return a;
}

/* Sizes of the batch axes of both, where they agree or one of them is 1. */
static int
common_batch(const stack *a, const stack *b, npy_intp batch[2])
{
    for (int i = 0; i < 2; i++) {
        batch[i] = a->size[i] == 1 ? b->size[i] : a->size[i];
        if (batch[i] != a->size[i] && a->size[i] != 1) {
            return -1;
        }
        if (batch[i] != b->size[i] && b->size[i] != 1) {
            return -1;
        }
    }
    return 0;
}

/* The array to write: `out`, which may be strided between rows and matrices, or a fresh one of nd axes. */
static PyArrayObject *
product_out(PyObject *out, int nd, const npy_intp size[4], stack *s)
{
    PyArrayObject *c;

    if (out == Py_None) {
        c = (PyArrayObject *)PyArray_SimpleNew(nd, size + 4 - nd, NPY_FLOAT);
        if (c != NULL) {
            (void)view_stack(c, s);
        }
    } else {
        if (!PyArray_Check(out) || PyArray_TYPE((PyArrayObject *)out) != NPY_FLOAT ||
            !PyArray_ISBEHAVED((PyArrayObject *)out)) {
            PyErr_SetString(PyExc_TypeError, "out must be a writable float32 array");
            return NULL;
        }
        c = (PyArrayObject *)Py_NewRef(out);
        if (sl_shape_is(c, nd, size + 4 - nd, "out") < 0) {
            Py_CLEAR(c);
        } else if (view_stack(c, s) < 0 || (s->strides.transposed && s->size[2] > 1 && s->size[3] > 1)) {
            PyErr_SetString(PyExc_ValueError, "out must be dense along its last axis");
            Py_CLEAR(c);
        }
    }
    s->strides.transposed = 0;
    return c;
}

/* 1 if the bytes that two arrays span overlap. */
static int
spans_overlap(PyArrayObject *a, PyArrayObject *b)
{
    const char *low[2], *high[2];
    PyArrayObject *both[2] = {a, b};

    for (int k = 0; k < 2; k++) {
        low[k] = PyArray_BYTES(both[k]);
        high[k] = low[k] + sizeof(float);
        for (int i = 0; i < PyArray_NDIM(both[k]); i++) {
            if (PyArray_DIM(both[k], i) == 0) {
                return 0;
            }
            high[k] += (PyArray_DIM(both[k], i) - 1) * PyArray_STRIDE(both[k], i);
        }
    }
    return low[0] < high[1] && low[1] < high[0];
}

static int
run_matmul(const npy_intp batch[2], const stack *a, const stack *b, const stack *c, const float *pa, const float *pb,
           float scale, float *pc, int n_threads)
{
    const npy_intp m = c->size[2], n = c->size[3], k = a->size[3];
    const npy_intp step = sl_per_call(batch[0], (double)batch[1] * (double)m * (double)n * (double)k, BUDGET);

    for (npy_intp o = 0; o < batch[0]; o += step) {
        sl_status status;
        Py_BEGIN_ALLOW_THREADS
        status = sl_matmul_f32(batch[0] - o < step ? batch[0] - o : step, batch[1], m, n, k, pa + o * a->strides.outer,
                               a->strides, pb + o * b->strides.outer, b->strides, scale, pc + o * c->strides.outer,
                               c->strides, n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "matmul: n_threads must be at least 1, and the result must fit into memory") < 0 ||
            PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(doc_matmul, "matmul(a, b, scale=1.0, out=None, n_threads=1)\n--\n\n"
                         "Batched matrix product; see semanticlens._kernels.contract.matmul.");

static PyObject *
py_matmul(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"a", "b", "scale", "out", "n_threads", NULL};
    PyObject *a_in, *b_in, *out = Py_None, *result = NULL;
    PyArrayObject *a = NULL, *b = NULL, *c = NULL;
    stack sa, sb, sc;
    npy_intp size[4];
    float scale = 1.0F;
    int n_threads = 1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|fOi:matmul", names, &a_in, &b_in, &scale, &out, &n_threads)) {
        return NULL;
    }
    a = matrix_stack(a_in, "a", &sa);
    b = a != NULL ? matrix_stack(b_in, "b", &sb) : NULL;
    if (b == NULL) {
        goto done;
    }
    if (sa.size[3] != sb.size[2] || common_batch(&sa, &sb, size) < 0) {
        PyErr_Format(
            PyExc_ValueError,
            "a and b do not fit: (%zd, %zd, %zd, %zd) times (%zd, %zd, %zd, %zd); the last of a must be the last "
            "but one of b, batch axes equal or 1",
            (Py_ssize_t)sa.size[0], (Py_ssize_t)sa.size[1], (Py_ssize_t)sa.size[2], (Py_ssize_t)sa.size[3],
            (Py_ssize_t)sb.size[0], (Py_ssize_t)sb.size[1], (Py_ssize_t)sb.size[2], (Py_ssize_t)sb.size[3]);
        goto done;
    }
    size[2] = sa.size[2], size[3] = sb.size[3];
    c = product_out(out, PyArray_NDIM(a) > PyArray_NDIM(b) ? PyArray_NDIM(a) : PyArray_NDIM(b), size, &sc);
    if (c == NULL) {
        goto done;
    }
    if (spans_overlap(c, a) || spans_overlap(c, b)) {
        PyErr_SetString(PyExc_ValueError, "out shares memory with a or b: give a separate array");
        goto done;
    }
    if (run_matmul(size, &sa, &sb, &sc, PyArray_DATA(a), PyArray_DATA(b), scale, PyArray_DATA(c), n_threads) == 0) {
        result = Py_NewRef((PyObject *)c);
    }
done:
    Py_XDECREF((PyObject *)a);
    Py_XDECREF((PyObject *)b);
    Py_XDECREF((PyObject *)c);
    return result;
}

PyMethodDef sl_matmul_methods[] = {
    {"matmul", (PyCFunction)(void (*)(void))py_matmul, METH_VARARGS | METH_KEYWORDS, doc_matmul},
    {NULL, NULL, 0, NULL},
};
