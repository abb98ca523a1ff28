/* Glue for sl_topm.h.  The state is a tuple of eight arrays that semanticlens._kernels.collect.TopM owns; it is updated in place. */
#include "py_common.h"
#include "sl/sl_topm.h"

enum { N_STATE = 8 };

static const struct {
    const char *name;
    int type, ndim;
} parts[N_STATE] = {
    {"state: scores", NPY_FLOAT, 2},  {"state: ids", NPY_INT64, 2},
    {"state: counts", NPY_INT64, 1},  {"state: nan_counts", NPY_INT64, 1},
    {"state: limits", NPY_FLOAT, 1},  {"state: limit_ids", NPY_INT64, 1},
    {"state: pending", NPY_INT64, 3}, {"state: pending_counts", NPY_INT32, 1},
};

static void
release(PyArrayObject *held[N_STATE])
{
    for (int i = 0; i < N_STATE; i++) {
        Py_XDECREF((PyObject *)held[i]);
        held[i] = NULL;
    }
}

/* Fills *state from the tuple and holds its arrays; 0, or -1 with an exception and nothing held. */
static int
hold_state(PyObject *tuple, int positive_only, sl_topm *state, PyArrayObject *held[N_STATE])
{
    if (!PyTuple_Check(tuple) || PyTuple_Size(tuple) != N_STATE) {
        PyErr_Format(PyExc_TypeError, "state must be a tuple of %d arrays", N_STATE);
        return -1;
    }
    for (int i = 0; i < N_STATE; i++) {
        held[i] = sl_array_inout(PyTuple_GetItem(tuple, i), parts[i].type, parts[i].ndim, parts[i].name);
        if (held[i] == NULL || sl_same_length(held[i], 0, held[0], 0, parts[i].name, parts[0].name) < 0) {
            release(held);
            return -1;
        }
        for (int j = 0; j < i; j++) {
            if (PyArray_DATA(held[j]) == PyArray_DATA(held[i]) && PyArray_SIZE(held[i]) > 0) {
                PyErr_Format(PyExc_ValueError, "%s and %s are the same memory", parts[j].name, parts[i].name);
                release(held);
                return -1;
            }
        }
    }
    if (sl_same_length(held[1], 1, held[0], 1, parts[1].name, parts[0].name) < 0) {
        release(held);
        return -1;
    }
    if (PyArray_DIM(held[6], 1) != SL_TOPM_PENDING || PyArray_DIM(held[6], 2) != 2) {
        PyErr_Format(PyExc_ValueError, "state: pending must have the shape (K, %d, 2)", SL_TOPM_PENDING);
        release(held);
        return -1;
    }
    *state = (sl_topm){
        .K = PyArray_DIM(held[0], 0),
        .m = PyArray_DIM(held[0], 1),
        .positive_only = positive_only,
        .scores = PyArray_DATA(held[0]),
        .ids = PyArray_DATA(held[1]),
        .counts = PyArray_DATA(held[2]),
        .nan_counts = PyArray_DATA(held[3]),
        .limits = PyArray_DATA(held[4]),
        .limit_ids = PyArray_DATA(held[5]),
        .pending = PyArray_DATA(held[6]),
        .pending_counts = PyArray_DATA(held[7]),
    };
    return 0;
}

PyDoc_STRVAR(doc_init, "topm_init(state, *, positive_only=False)\n--\n\n"
                       "Empty a state; see semanticlens._kernels.collect.TopM.");

static PyObject *
py_init(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "positive_only", NULL};
    PyArrayObject *held[N_STATE] = {NULL};
    PyObject *tuple;
    sl_topm state;
    int positive_only = 0, failed;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:topm_init", names, &tuple, &positive_only) ||
        hold_state(tuple, positive_only, &state, held) < 0) {
        return NULL;
    }
    failed = sl_raise(sl_topm_init(&state), "topm_init: m must be at least 1");
    release(held);
    return failed ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(doc_update, "topm_update(state, values, ids, *, positive_only=False, n_threads=1)\n--\n\n"
                         "Offer values (B, K) of the samples ids (B,); see semanticlens._kernels.collect.TopM.");

static PyObject *
py_update(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "values", "ids", "positive_only", "n_threads", NULL};
    PyArrayObject *held[N_STATE] = {NULL}, *values = NULL, *ids = NULL;
    PyObject *tuple, *values_in, *ids_in, *result = NULL;
    int positive_only = 0, n_threads = 1;
    sl_topm state;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$pi:topm_update", names, &tuple, &values_in, &ids_in,
                                     &positive_only, &n_threads) ||
        hold_state(tuple, positive_only, &state, held) < 0) {
        return NULL;
    }
    values = sl_array(values_in, NPY_FLOAT, 2, "values");
    ids = values == NULL ? NULL : sl_array(ids_in, NPY_INT64, 1, "ids");
    if (ids == NULL || sl_same_length(ids, 0, values, 0, "ids", "values") < 0 ||
        sl_same_length(values, 1, held[0], 0, "values", "state: scores") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_topm_update_f32(&state, PyArray_DATA(values), PyArray_DATA(ids), PyArray_DIM(values, 0), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "topm_update: ids must not be negative, n_threads at least 1, and the "
                         "state one that topm_init made") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)values);
    Py_XDECREF((PyObject *)ids);
    release(held);
    return result;
}

PyDoc_STRVAR(doc_merge, "topm_merge(state, scores, ids, *, positive_only=False, n_threads=1)\n--\n\n"
                        "Offer the lists (K, n) of another state and flush; see semanticlens._kernels.collect.TopM.");

static PyObject *
py_merge(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "scores", "ids", "positive_only", "n_threads", NULL};
    PyArrayObject *held[N_STATE] = {NULL}, *scores = NULL, *ids = NULL;
    PyObject *tuple, *scores_in, *ids_in, *result = NULL;
    int positive_only = 0, n_threads = 1;
    sl_topm state;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$pi:topm_merge", names, &tuple, &scores_in, &ids_in,
                                     &positive_only, &n_threads) ||
        hold_state(tuple, positive_only, &state, held) < 0) {
        return NULL;
    }
    scores = sl_array(scores_in, NPY_FLOAT, 2, "scores");
    ids = scores == NULL ? NULL : sl_array(ids_in, NPY_INT64, 2, "ids");
    if (ids == NULL || sl_same_length(scores, 0, held[0], 0, "scores", "state: scores") < 0 ||
        sl_same_length(ids, 0, scores, 0, "ids", "scores") < 0 ||
        sl_same_length(ids, 1, scores, 1, "ids", "scores") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_topm_merge_f32(&state, PyArray_DATA(scores), PyArray_DATA(ids), PyArray_DIM(scores, 1), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "topm_merge: n_threads must be at least 1, and the state one that topm_init made") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)scores);
    Py_XDECREF((PyObject *)ids);
    release(held);
    return result;
}

PyDoc_STRVAR(doc_flush, "topm_flush(state, *, positive_only=False, n_threads=1)\n--\n\n"
                        "Merge pending candidates into the lists; see semanticlens._kernels.collect.TopM.");

static PyObject *
py_flush(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "positive_only", "n_threads", NULL};
    PyArrayObject *held[N_STATE] = {NULL};
    PyObject *tuple;
    sl_topm state;
    sl_status status;
    int positive_only = 0, n_threads = 1, failed;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$pi:topm_flush", names, &tuple, &positive_only, &n_threads) ||
        hold_state(tuple, positive_only, &state, held) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_topm_flush(&state, n_threads);
    Py_END_ALLOW_THREADS
    failed = sl_raise(status, "topm_flush: n_threads must be at least 1, and the state one that topm_init made");
    release(held);
    return failed ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(doc_class_top, "class_top(best, values, targets, *, positive_only=False, n_threads=1)\n--\n\n"
                            "Update the largest scores per class; see semanticlens._kernels.collect.ClassTop.");

static PyObject *
py_class_top(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"best", "values", "targets", "positive_only", "n_threads", NULL};
    PyArrayObject *best = NULL, *values = NULL, *targets = NULL;
    PyObject *best_in, *values_in, *targets_in, *result = NULL;
    int positive_only = 0, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$pi:class_top", names, &best_in, &values_in, &targets_in,
                                     &positive_only, &n_threads)) {
        return NULL;
    }
    best = sl_array_inout(best_in, NPY_FLOAT, 3, "best");
    values = best == NULL ? NULL : sl_array(values_in, NPY_FLOAT, 2, "values");
    targets = values == NULL ? NULL : sl_array(targets_in, NPY_INT64, 1, "targets");
    if (targets == NULL || sl_same_length(values, 1, best, 1, "values", "best") < 0 ||
        sl_same_length(targets, 0, values, 0, "targets", "values") < 0) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status =
        sl_class_top_f32(PyArray_DATA(best), PyArray_DIM(best, 0), PyArray_DIM(best, 1), PyArray_DIM(best, 2),
                         PyArray_DATA(values), PyArray_DATA(targets), PyArray_DIM(values, 0), positive_only, n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "class_top: targets must lie between -1 and the number of classes less "
                         "one, best must keep at least one score, "
                         "n_threads must be at least 1") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_XDECREF((PyObject *)best);
    Py_XDECREF((PyObject *)values);
    Py_XDECREF((PyObject *)targets);
    return result;
}

PyMethodDef sl_topm_methods[] = {
    {"topm_init", (PyCFunction)(void (*)(void))py_init, METH_VARARGS | METH_KEYWORDS, doc_init},
    {"topm_update", (PyCFunction)(void (*)(void))py_update, METH_VARARGS | METH_KEYWORDS, doc_update},
    {"topm_merge", (PyCFunction)(void (*)(void))py_merge, METH_VARARGS | METH_KEYWORDS, doc_merge},
    {"topm_flush", (PyCFunction)(void (*)(void))py_flush, METH_VARARGS | METH_KEYWORDS, doc_flush},
    {"class_top", (PyCFunction)(void (*)(void))py_class_top, METH_VARARGS | METH_KEYWORDS, doc_class_top},
    {NULL, NULL, 0, NULL},
};
