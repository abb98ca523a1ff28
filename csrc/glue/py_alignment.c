/* Glue for sl_rand.h and sl_concept_pairs.h: parse, convert, check, release the GIL, call, map the status. */
#include "py_common.h"
#include "sl/sl_concept_pairs.h"
#include "sl/sl_rand.h"

/* The representations of one call: borrowed arrays and the views the core reads. */
typedef struct {
    Py_ssize_t n_reps, rows;
    PyArrayObject **arrays;
    sl_memberships *views;
} representations;

static void
representations_clear(representations *reps)
{
    for (Py_ssize_t r = 0; reps->arrays != NULL && r < reps->n_reps; r++) {
        Py_XDECREF((PyObject *)reps->arrays[r]);
    }
    PyMem_Free(reps->arrays);
    PyMem_Free(reps->views);
}

/* 0, or -1 with an exception; representations_clear() is due either way. */
static int
representations_read(PyObject *list, representations *reps)
{
    PyObject *items = PySequence_Tuple(list);

    if (items == NULL) {
        return -1;
    }
    reps->n_reps = PyTuple_Size(items);
    reps->arrays = PyMem_Calloc((size_t)reps->n_reps + 1, sizeof *reps->arrays);
    reps->views = PyMem_Calloc((size_t)reps->n_reps + 1, sizeof *reps->views);
    if (reps->arrays == NULL || reps->views == NULL) {
        Py_DECREF(items);
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t r = 0; r < reps->n_reps; r++) {
        PyArrayObject *array = sl_array(PyTuple_GetItem(items, r), NPY_FLOAT, 2, "memberships");
        reps->arrays[r] = array;
        if (array == NULL ||
            (r > 0 && sl_same_length(array, 0, reps->arrays[0], 0, "memberships", "the first memberships") < 0)) {
            Py_DECREF(items);
            return -1;
        }
        reps->views[r].p = PyArray_DATA(array);
        reps->views[r].k = PyArray_DIM(array, 1);
    }
    reps->rows = reps->n_reps > 0 ? PyArray_DIM(reps->arrays[0], 0) : 0;
    Py_DECREF(items);
    return 0;
}

PyDoc_STRVAR(doc_rand_blocks, "rand_blocks(n)\n--\n\nNumber of block rows of a pass over the pairs of n samples.");

static PyObject *
py_rand_blocks(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", NULL};
    Py_ssize_t n;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n:rand_blocks", names, &n)) {
        return NULL;
    }
    return PyLong_FromSsize_t(sl_rand_blocks(n));
}

PyDoc_STRVAR(doc_rand_sums,
             "rand_sums(n_representations, n, *, with_rows=False)\n--\n\nZeroed sums for rand_accumulate.");

static PyObject *
py_rand_sums(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n_representations", "n", "with_rows", NULL};
    Py_ssize_t n_reps, n;
    int with_rows = 0;
    npy_intp size;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nn|$p:rand_sums", names, &n_reps, &n, &with_rows)) {
        return NULL;
    }
    size = sl_rand_sums_size(n_reps, n, with_rows);
    if (size < 0) {
        PyErr_Format(PyExc_ValueError,
                     "n_representations=%zd and n=%zd: need at least one representation of two samples", n_reps, n);
        return NULL;
    }
    return PyArray_ZEROS(1, &size, NPY_INT64, 0);
}

PyDoc_STRVAR(doc_rand_accumulate,
             "rand_accumulate(memberships, sums, begin, end, *, bin_every=0, with_rows=False, n_threads=1)\n--\n\n"
             "Add the pairs of block rows [begin, end) to sums, in place; see semanticlens.alignment.index.");

static PyObject *
py_rand_accumulate(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"memberships", "sums", "begin", "end", "bin_every", "with_rows", "n_threads", NULL};
    PyObject *list, *sums_in, *result = NULL;
    PyArrayObject *sums = NULL;
    representations reps = {0, 0, NULL, NULL};
    Py_ssize_t begin, end;
    int bin_every = 0, with_rows = 0, n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOnn|$ipi:rand_accumulate", names, &list, &sums_in, &begin, &end,
                                     &bin_every, &with_rows, &n_threads)) {
        return NULL;
    }
    sums = sl_array_inout(sums_in, NPY_INT64, 1, "sums");
    if (sums == NULL || representations_read(list, &reps) < 0) {
        goto done;
    }
    if (PyArray_DIM(sums, 0) != sl_rand_sums_size(reps.n_reps, reps.rows, with_rows)) {
        PyErr_SetString(PyExc_ValueError, "sums has the wrong length for these memberships: make it with rand_sums()");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_rand_accumulate(reps.views, reps.n_reps, reps.rows, begin, end, bin_every, with_rows,
                                PyArray_DATA(sums), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "rand_accumulate: begin and end must lie in [0, rand_blocks(n)], "
                         "n_threads must be at least 1") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    representations_clear(&reps);
    Py_XDECREF((PyObject *)sums);
    return result;
}

PyDoc_STRVAR(doc_rand_finish,
             "rand_finish(sums, n_representations, n, *, with_rows=False)\n--\n\n"
             "(mean_difference, mean_distance, row_difference or None, bin_count, bin_sum) of a complete pass.");

static PyObject *
py_rand_finish(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sums", "n_representations", "n", "with_rows", NULL};
    PyObject *sums_in, *result = NULL, *difference = NULL, *distance = NULL, *rows = NULL, *count = NULL, *sum = NULL;
    PyArrayObject *sums = NULL;
    Py_ssize_t R, n;
    int with_rows = 0;
    sl_rand_result out = {NULL, NULL, NULL, NULL, NULL};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Onn|$p:rand_finish", names, &sums_in, &R, &n, &with_rows)) {
        return NULL;
    }
    sums = sl_array_inout(sums_in, NPY_INT64, 1, "sums");
    if (sums == NULL) {
        return NULL;
    }
    if (PyArray_DIM(sums, 0) != sl_rand_sums_size(R, n, with_rows)) {
        PyErr_SetString(PyExc_ValueError,
                        "sums has the wrong length for n_representations and n: make it with rand_sums()");
        goto done;
    }
    difference = PyArray_SimpleNew(2, ((npy_intp[]){R, R}), NPY_DOUBLE);
    distance = PyArray_SimpleNew(1, ((npy_intp[]){R}), NPY_DOUBLE);
    rows = with_rows ? PyArray_SimpleNew(2, ((npy_intp[]){R * (R - 1) / 2, n}), NPY_DOUBLE) : Py_NewRef(Py_None);
    count = PyArray_SimpleNew(2, ((npy_intp[]){R, SL_RAND_BINS}), NPY_INT64);
    sum = PyArray_SimpleNew(2, ((npy_intp[]){R, SL_RAND_BINS}), NPY_DOUBLE);
    if (difference == NULL || distance == NULL || rows == NULL || count == NULL || sum == NULL) {
        goto done;
    }
    out.mean_difference = PyArray_DATA((PyArrayObject *)difference);
    out.mean_distance = PyArray_DATA((PyArrayObject *)distance);
    out.row_difference = with_rows ? PyArray_DATA((PyArrayObject *)rows) : NULL;
    out.bin_count = PyArray_DATA((PyArrayObject *)count);
    out.bin_sum = PyArray_DATA((PyArrayObject *)sum);
    if (sl_raise(sl_rand_finish(PyArray_DATA(sums), R, n, with_rows, &out), "rand_finish: wrong sizes") == 0) {
        result = PyTuple_Pack(5, difference, distance, rows, count, sum);
    }
done:
    Py_XDECREF(difference);
    Py_XDECREF(distance);
    Py_XDECREF(rows);
    Py_XDECREF(count);
    Py_XDECREF(sum);
    Py_XDECREF((PyObject *)sums);
    return result;
}

PyDoc_STRVAR(doc_rand_parts,
             "rand_parts(p, q, parts, begin, end, *, n_threads=1)\n--\n\n"
             "Add the parts of the concepts from block rows [begin, end) to parts (Kp + Kq,), in place; "
             "returns their unit.");

static PyObject *
py_rand_parts(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"p", "q", "parts", "begin", "end", "n_threads", NULL};
    PyObject *p_in, *q_in, *parts_in, *result = NULL;
    PyArrayObject *p = NULL, *q = NULL, *parts = NULL;
    Py_ssize_t begin, end;
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOnn|$i:rand_parts", names, &p_in, &q_in, &parts_in, &begin, &end,
                                     &n_threads)) {
        return NULL;
    }
    if ((p = sl_array(p_in, NPY_FLOAT, 2, "p")) == NULL || (q = sl_array(q_in, NPY_FLOAT, 2, "q")) == NULL ||
        sl_same_length(q, 0, p, 0, "q", "p") < 0 || (parts = sl_array_inout(parts_in, NPY_INT64, 1, "parts")) == NULL) {
        goto done;
    }
    const sl_memberships left = {PyArray_DATA(p), PyArray_DIM(p, 1)}, right = {PyArray_DATA(q), PyArray_DIM(q, 1)};
    if (PyArray_DIM(parts, 0) != left.k + right.k) {
        PyErr_SetString(PyExc_ValueError, "parts must have one entry for each concept of p and of q");
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_rand_parts(&left, &right, PyArray_DIM(p, 0), begin, end, PyArray_DATA(parts), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "rand_parts: need at least two samples, begin and end in [0, rand_blocks(n)], "
                         "n_threads at least 1") == 0) {
        result = PyFloat_FromDouble(sl_rand_part_unit(PyArray_DIM(p, 0)));
    }
done:
    Py_XDECREF((PyObject *)parts);
    Py_XDECREF((PyObject *)q);
    Py_XDECREF((PyObject *)p);
    return result;
}

PyDoc_STRVAR(doc_rand_draw,
             "rand_draw(memberships, sums, bin_count, bin_sum, seed, begin, end, *, n_threads=1)\n--\n\n"
             "Add random pairs, draws [begin, end) of seed, to the int64 arrays, in place; see sl_rand.h.");

static PyObject *
py_rand_draw(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"memberships", "sums", "bin_count", "bin_sum", "seed", "begin", "end", "n_threads", NULL};
    PyObject *list, *in[3], *result = NULL;
    PyArrayObject *out[3] = {NULL, NULL, NULL};
    representations reps = {0, 0, NULL, NULL};
    unsigned long long seed;
    Py_ssize_t begin, end;
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOKnn|$i:rand_draw", names, &list, &in[0], &in[1], &in[2], &seed,
                                     &begin, &end, &n_threads) ||
        representations_read(list, &reps) < 0) {
        goto done;
    }
    for (int t = 0; t < 3; t++) {
        const npy_intp rows = t == 0 ? reps.n_reps * (reps.n_reps - 1) / 2 : reps.n_reps;
        out[t] = sl_array_inout(in[t], NPY_INT64, 2, names[t + 1]);
        if (out[t] == NULL) {
            goto done;
        }
        if (PyArray_DIM(out[t], 0) != rows || PyArray_DIM(out[t], 1) != (t == 0 ? 2 : SL_RAND_BINS)) {
            PyErr_Format(PyExc_ValueError, "%s has the wrong shape for these memberships", names[t + 1]);
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_rand_draw(reps.views, reps.n_reps, reps.rows, seed, begin, end, PyArray_DATA(out[0]),
                          PyArray_DATA(out[1]), PyArray_DATA(out[2]), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "rand_draw: need two samples, 0 <= begin <= end <= 2^32, n_threads at "
                         "least 1") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    for (int t = 0; t < 3; t++) {
        Py_XDECREF((PyObject *)out[t]);
    }
    representations_clear(&reps);
    return result;
}

PyDoc_STRVAR(doc_concept_distances,
             "concept_distances(p, p_sorted, q, q_sorted, distance, lone, begin, end, *, n_threads=1)\n--\n\n"
             "Fill rows [begin, end) of distance and lone, in place; see semanticlens.alignment.pairs.");

static PyObject *
py_concept_distances(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"p", "p_sorted", "q", "q_sorted", "distance", "lone", "begin", "end", "n_threads", NULL};
    PyObject *in[6], *result = NULL;
    PyArrayObject *array[6] = {NULL, NULL, NULL, NULL, NULL, NULL};
    sl_concepts p, q;
    Py_ssize_t begin, end;
    int n_threads = 1;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOnn|$i:concept_distances", names, &in[0], &in[1], &in[2],
                                     &in[3], &in[4], &in[5], &begin, &end, &n_threads)) {
        return NULL;
    }
    for (int t = 0; t < 6; t++) {
        array[t] = t < 4 ? sl_array(in[t], NPY_FLOAT, 2, names[t])
                         : sl_array_inout(in[t], NPY_DOUBLE, t == 4 ? 2 : 1, names[t]);
        if (array[t] == NULL) {
            goto done;
        }
    }
    if (sl_same_length(array[1], 0, array[0], 0, "p_sorted", "p") < 0 ||
        sl_same_length(array[1], 1, array[0], 1, "p_sorted", "p") < 0 ||
        sl_same_length(array[3], 0, array[2], 0, "q_sorted", "q") < 0 ||
        sl_same_length(array[3], 1, array[2], 1, "q_sorted", "q") < 0 ||
        sl_same_length(array[2], 1, array[0], 1, "q", "p") < 0 ||
        sl_same_length(array[4], 0, array[0], 0, "distance", "p") < 0 ||
        sl_same_length(array[4], 1, array[2], 0, "distance", "q") < 0 ||
        sl_same_length(array[5], 0, array[0], 0, "lone", "p") < 0) {
        goto done;
    }
    p = (sl_concepts){PyArray_DATA(array[0]), PyArray_DATA(array[1]), PyArray_DIM(array[0], 0)};
    q = (sl_concepts){PyArray_DATA(array[2]), PyArray_DATA(array[3]), PyArray_DIM(array[2], 0)};
    Py_BEGIN_ALLOW_THREADS
    status = sl_concept_distances_f32(&p, &q, PyArray_DIM(array[0], 1), begin, end, PyArray_DATA(array[4]),
                                      PyArray_DATA(array[5]), n_threads);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "concept_distances: need 2 to 2^23 samples, entries of at most 2, begin "
                         "and end in [0, "
                         "p.shape[0]], n_threads at least 1") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    for (int t = 0; t < 6; t++) {
        Py_XDECREF((PyObject *)array[t]);
    }
    return result;
}

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_VARARGS | METH_KEYWORDS, doc_##name}

PyMethodDef sl_alignment_methods[] = {
    ENTRY(rand_blocks), ENTRY(rand_sums), ENTRY(rand_accumulate),   ENTRY(rand_finish),
    ENTRY(rand_parts),  ENTRY(rand_draw), ENTRY(concept_distances), {NULL, NULL, 0, NULL},
};
