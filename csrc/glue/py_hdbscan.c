/* Glue for sl_hdbscan.h and sl_membership.h.  Long work is done in parts, with a look at the keyboard in between. */
#include "py_common.h"
#include "sl/sl_hdbscan.h"
#include "sl/sl_membership.h"

#define SPACE_HINT                                                                                                     \
    "points must be finite, at least one row and one column, and fewer than 2^31 rows: remove NaN and inf first"

static void
drop(PyArrayObject **arrays, int n)
{
    for (int t = 0; t < n; t++) {
        Py_CLEAR(arrays[t]);
    }
}

static PyArrayObject *
fresh(npy_intp n, int type)
{
    return (PyArrayObject *)PyArray_SimpleNew(1, &n, type);
}

/* Tuple of the arrays, or NULL. */
static PyObject *
tuple_of(PyArrayObject *const *arrays, int n)
{
    PyObject *tuple = PyTuple_New(n);

    for (int t = 0; tuple != NULL && t < n; t++) {
        PyTuple_SetItem(tuple, t, Py_NewRef((PyObject *)arrays[t])); /* steals, and cannot fail here */
    }
    return tuple;
}

/* A search tree over the rows of x, or NULL with an exception. */
static sl_space *
space_of(PyArrayObject *x)
{
    sl_space *space;
    sl_status status;

    Py_BEGIN_ALLOW_THREADS
    status = sl_space_new(PyArray_DATA(x), PyArray_DIM(x, 0), PyArray_DIM(x, 1), &space);
    Py_END_ALLOW_THREADS
    return sl_raise(status, SPACE_HINT) == 0 ? space : NULL;
}

PyDoc_STRVAR(doc_nearest, "nearest(x, z, k, *, n_threads=1)\n--\n\n"
                          "(index, squared distance), each (m, k), of the k rows of x nearest to each row of z.");

static PyObject *
py_nearest(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "z", "k", "n_threads", NULL};
    PyObject *x_in, *z_in, *result = NULL;
    PyArrayObject *in[2] = {NULL, NULL}, *out[2] = {NULL, NULL};
    sl_space *space = NULL;
    Py_ssize_t k, rows_a_call = 4096;
    int n_threads = 1;
    sl_status status = SL_OK;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOn|$i:nearest", names, &x_in, &z_in, &k, &n_threads)) {
        return NULL;
    }
    if ((in[0] = sl_array(x_in, NPY_DOUBLE, 2, "x")) == NULL || (in[1] = sl_array(z_in, NPY_DOUBLE, 2, "z")) == NULL ||
        sl_same_length(in[1], 1, in[0], 1, "z", "x") < 0 || (space = space_of(in[0])) == NULL) {
        goto done;
    }
    if (k < 1 || k > PyArray_DIM(in[0], 0) || n_threads < 1) {
        PyErr_Format(PyExc_ValueError, "k=%zd must lie between 1 and the %zd rows of x, and n_threads be at least 1", k,
                     (Py_ssize_t)PyArray_DIM(in[0], 0));
        goto done;
    }
    const npy_intp m = PyArray_DIM(in[1], 0), shape[2] = {m, k};
    out[0] = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_INT32);
    out[1] = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_DOUBLE);
    if (out[0] == NULL || out[1] == NULL) {
        goto done;
    }
    for (npy_intp begin = 0; begin < m; begin += rows_a_call) {
        const npy_intp end = begin + rows_a_call < m ? begin + rows_a_call : m;
        Py_BEGIN_ALLOW_THREADS
        status = sl_space_nearest(space, PyArray_DATA(in[1]), m, k, begin, end, PyArray_DATA(out[0]),
                                  PyArray_DATA(out[1]), n_threads);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "z has NaN: remove those rows first") < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    result = tuple_of(out, 2);
done:
    sl_space_free(space);
    drop(in, 2);
    drop(out, 2);
    return result;
}

PyDoc_STRVAR(doc_spanning_tree, "spanning_tree(x, min_samples, *, n_threads=1)\n--\n\n"
                                "(low, high, weight, core) of the minimum spanning tree of mutual reachability.");

static PyObject *
py_spanning_tree(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"x", "min_samples", "n_threads", NULL};
    static const int types[4] = {NPY_INT64, NPY_INT64, NPY_DOUBLE, NPY_DOUBLE};
    PyObject *x_in, *result = NULL;
    PyArrayObject *x = NULL, *out[4] = {NULL, NULL, NULL, NULL};
    sl_space *space = NULL;
    sl_mst *mst = NULL;
    Py_ssize_t min_samples;
    int n_threads = 1, ready = 0;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "On|$i:spanning_tree", names, &x_in, &min_samples, &n_threads)) {
        return NULL;
    }
    if ((x = sl_array(x_in, NPY_DOUBLE, 2, "x")) == NULL || (space = space_of(x)) == NULL) {
        goto done;
    }
    status = n_threads < 1 ? SL_ERR_ARG : sl_mst_new(space, min_samples, &mst);
    if (sl_raise(status, "min_samples must lie in [0, rows of x), and n_threads be at least 1") < 0) {
        goto done;
    }
    while (!ready) {
        Py_BEGIN_ALLOW_THREADS
        status = sl_mst_step(mst, n_threads, &ready);
        Py_END_ALLOW_THREADS
        if (sl_raise(status, "spanning_tree: wrong arguments") < 0 || PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    for (int t = 0; t < 4; t++) {
        if ((out[t] = fresh(PyArray_DIM(x, 0) - (t < 3), types[t])) == NULL) {
            goto done;
        }
    }
    status = sl_mst_read(mst, PyArray_DATA(out[0]), PyArray_DATA(out[1]), PyArray_DATA(out[2]), PyArray_DATA(out[3]));
    if (sl_raise(status, "spanning_tree: not finished") == 0) {
        result = tuple_of(out, 4);
    }
done:
    sl_mst_free(mst);
    sl_space_free(space);
    Py_XDECREF((PyObject *)x);
    drop(out, 4);
    return result;
}

PyDoc_STRVAR(doc_single_linkage, "single_linkage(low, high)\n--\n\n"
                                 "(left, right, size) of the merges along the edges of a tree, in their order.");

static PyObject *
py_single_linkage(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"low", "high", NULL};
    PyObject *low_in, *high_in, *result = NULL;
    PyArrayObject *in[2] = {NULL, NULL}, *out[3] = {NULL, NULL, NULL};
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:single_linkage", names, &low_in, &high_in)) {
        return NULL;
    }
    if ((in[0] = sl_array(low_in, NPY_INT64, 1, "low")) == NULL ||
        (in[1] = sl_array(high_in, NPY_INT64, 1, "high")) == NULL ||
        sl_same_length(in[1], 0, in[0], 0, "high", "low") < 0) {
        goto done;
    }
    for (int t = 0; t < 3; t++) {
        if ((out[t] = fresh(PyArray_DIM(in[0], 0), NPY_INT64)) == NULL) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_single_linkage(PyArray_DATA(in[0]), PyArray_DATA(in[1]), PyArray_DIM(in[0], 0) + 1,
                               PyArray_DATA(out[0]), PyArray_DATA(out[1]), PyArray_DATA(out[2]));
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "low and high are not the n - 1 edges of a tree over n points") == 0) {
        result = tuple_of(out, 3);
    }
done:
    drop(in, 2);
    drop(out, 3);
    return result;
}

PyDoc_STRVAR(doc_condense, "condense(left, right, height, size, min_size)\n--\n\n"
                           "(parent, child, lambda, child_size) of the condensed tree of a dendrogram.");

static PyObject *
py_condense(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"left", "right", "height", "size", "min_size", NULL};
    static const int types[4] = {NPY_INT64, NPY_INT64, NPY_DOUBLE, NPY_INT64};
    PyObject *given[4], *result = NULL;
    PyArrayObject *in[4] = {NULL, NULL, NULL, NULL}, *out[4] = {NULL, NULL, NULL, NULL};
    Py_ssize_t min_size;
    ptrdiff_t rows = 0;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOn:condense", names, &given[0], &given[1], &given[2], &given[3],
                                     &min_size)) {
        return NULL;
    }
    for (int t = 0; t < 4; t++) {
        in[t] = sl_array(given[t], types[t], 1, names[t]);
        if (in[t] == NULL || sl_same_length(in[t], 0, in[0], 0, names[t], names[0]) < 0 ||
            (out[t] = fresh(2 * (PyArray_DIM(in[0], 0) + 1), types[t])) == NULL) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_condense(PyArray_DATA(in[0]), PyArray_DATA(in[1]), PyArray_DATA(in[2]), PyArray_DATA(in[3]),
                         PyArray_DIM(in[0], 0) + 1, min_size, PyArray_DATA(out[0]), PyArray_DATA(out[1]),
                         PyArray_DATA(out[2]), PyArray_DATA(out[3]), &rows);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "left, right, height and size must be a dendrogram of two points or more, and "
                         "min_size at least 2") == 0) {
        result = Py_BuildValue("(NNNN)", PySequence_GetSlice((PyObject *)out[0], 0, rows),
                               PySequence_GetSlice((PyObject *)out[1], 0, rows),
                               PySequence_GetSlice((PyObject *)out[2], 0, rows),
                               PySequence_GetSlice((PyObject *)out[3], 0, rows));
    }
done:
    drop(in, 4);
    drop(out, 4);
    return result;
}

static const int tree_types[6] = {NPY_INT64, NPY_DOUBLE, NPY_DOUBLE, NPY_DOUBLE, NPY_INT64, NPY_DOUBLE};

static sl_tree
tree_view(PyArrayObject *const *array)
{
    return (sl_tree){PyArray_DIM(array[4], 0), PyArray_DIM(array[0], 0), PyArray_DATA(array[0]),
                     PyArray_DATA(array[1]),   PyArray_DATA(array[2]),   PyArray_DATA(array[3]),
                     PyArray_DATA(array[4]),   PyArray_DATA(array[5])};
}

PyDoc_STRVAR(doc_tree_nodes,
             "tree_nodes(parent, child, lambda_, child_size, n, n_nodes)\n--\n\n"
             "(up, birth, lmax, stability, point_node, point_lambda) of a condensed tree over n points.");

static PyObject *
py_tree_nodes(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"parent", "child", "lambda_", "child_size", "n", "n_nodes", NULL};
    static const int types[4] = {NPY_INT64, NPY_INT64, NPY_DOUBLE, NPY_INT64};
    PyObject *given[4], *result = NULL;
    PyArrayObject *in[4] = {NULL, NULL, NULL, NULL}, *out[6] = {NULL, NULL, NULL, NULL, NULL, NULL};
    Py_ssize_t n, n_nodes;
    sl_tree tree;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOnn:tree_nodes", names, &given[0], &given[1], &given[2],
                                     &given[3], &n, &n_nodes)) {
        return NULL;
    }
    if (n < 1 || n_nodes < 1) {
        PyErr_Format(PyExc_ValueError, "n=%zd and n_nodes=%zd must be at least 1", n, n_nodes);
        return NULL;
    }
    for (int t = 0; t < 4; t++) {
        in[t] = sl_array(given[t], types[t], 1, names[t]);
        if (in[t] == NULL || sl_same_length(in[t], 0, in[0], 0, names[t], names[0]) < 0) {
            goto done;
        }
    }
    for (int t = 0; t < 6; t++) {
        if ((out[t] = fresh(t < 4 ? n_nodes : n, tree_types[t])) == NULL) {
            goto done;
        }
    }
    tree = tree_view(out);
    Py_BEGIN_ALLOW_THREADS
    status = sl_tree_fill(PyArray_DATA(in[0]), PyArray_DATA(in[1]), PyArray_DATA(in[2]), PyArray_DATA(in[3]),
                          PyArray_DIM(in[0], 0), &tree);
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "not a condensed tree: each point 0..n-1 and each cluster above n must be a "
                         "child once, of a cluster with a lower number, at lambda >= 0") == 0) {
        result = tuple_of(out, 6);
    }
done:
    drop(in, 4);
    drop(out, 6);
    return result;
}

/* Reads the tuple of tree_nodes() into `array`; 0, or -1 with an exception (drop() is due either way). */
static int
tree_read(PyObject *nodes, PyArrayObject **array, sl_tree *tree)
{
    PyObject *items = PySequence_Tuple(nodes);
    int good = items != NULL && PyTuple_Size(items) == 6;

    if (items != NULL && !good) {
        PyErr_SetString(PyExc_ValueError, "nodes must be the six arrays of tree_nodes()");
    }
    for (int t = 0; good && t < 6; t++) {
        array[t] = sl_array(PyTuple_GetItem(items, t), tree_types[t], 1, "nodes");
        good = array[t] != NULL && sl_same_length(array[t], 0, array[t < 4 ? 0 : 4], 0, "nodes", "nodes") == 0;
    }
    Py_XDECREF(items);
    if (!good) {
        return -1;
    }
    *tree = tree_view(array);
    for (ptrdiff_t t = 0; t < tree->T; t++) {
        good = good && tree->up[t] >= 0 && (tree->up[t] < t || (t == 0 && tree->up[t] == 0));
    }
    for (ptrdiff_t p = 0; p < tree->n; p++) {
        good = good && tree->point_node[p] >= 0 && tree->point_node[p] < tree->T;
    }
    if (!good || tree->T < 1) {
        PyErr_SetString(PyExc_ValueError, "nodes are inconsistent: make them with tree_nodes()");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(doc_tree_select, "tree_select(nodes, method, epsilon)\n--\n\n"
                              "(n_nodes,) uint8 of the selected nodes; method 0 is leaf, 1 eom.");

static PyObject *
py_tree_select(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"nodes", "method", "epsilon", NULL};
    PyObject *nodes, *result = NULL;
    PyArrayObject *array[6] = {NULL, NULL, NULL, NULL, NULL, NULL}, *selected = NULL;
    sl_tree tree;
    int method;
    double epsilon;
    sl_status status;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oid:tree_select", names, &nodes, &method, &epsilon)) {
        return NULL;
    }
    if (tree_read(nodes, array, &tree) < 0 || (selected = fresh(tree.T, NPY_UINT8)) == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_tree_select(&tree, (sl_selection)method, epsilon, PyArray_DATA(selected));
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "method must be 0 or 1, and epsilon at least 0") == 0) {
        result = Py_NewRef((PyObject *)selected);
    }
done:
    drop(array, 6);
    Py_XDECREF((PyObject *)selected);
    return result;
}

PyDoc_STRVAR(doc_tree_labels, "tree_labels(nodes, selected)\n--\n\n"
                              "(concept_of, labels, strength, exemplar, height) for the selected nodes.");

static PyObject *
py_tree_labels(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"nodes", "selected", NULL};
    static const int types[4] = {NPY_INT64, NPY_INT64, NPY_DOUBLE, NPY_UINT8};
    PyObject *nodes, *selected_in, *result = NULL;
    PyArrayObject *array[6] = {NULL, NULL, NULL, NULL, NULL, NULL}, *selected = NULL;
    PyArrayObject *out[5] = {NULL, NULL, NULL, NULL, NULL};
    sl_tree tree;
    sl_status status;
    npy_intp shape[2] = {0, 0};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:tree_labels", names, &nodes, &selected_in)) {
        return NULL;
    }
    if (tree_read(nodes, array, &tree) < 0 || (selected = sl_array(selected_in, NPY_UINT8, 1, "selected")) == NULL ||
        sl_same_length(selected, 0, array[0], 0, "selected", "nodes") < 0) {
        goto done;
    }
    shape[0] = tree.T;
    for (npy_intp t = 0; t < tree.T; t++) {
        shape[1] += ((const uint8_t *)PyArray_DATA(selected))[t] != 0;
    }
    for (int t = 0; t < 5; t++) {
        out[t] = t < 4 ? fresh(t == 0 ? tree.T : tree.n, types[t])
                       : (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_DOUBLE);
        if (out[t] == NULL) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    status = sl_tree_labels(&tree, PyArray_DATA(selected), PyArray_DATA(out[0]), PyArray_DATA(out[1]),
                            PyArray_DATA(out[2]), PyArray_DATA(out[3]));
    if (status == SL_OK) {
        status = sl_tree_heights(&tree, PyArray_DATA(selected), shape[1], PyArray_DATA(out[4]));
    }
    Py_END_ALLOW_THREADS
    if (sl_raise(status, "tree_labels: wrong arguments") == 0) {
        result = tuple_of(out, 5);
    }
done:
    drop(array, 6);
    drop(out, 5);
    Py_XDECREF((PyObject *)selected);
    return result;
}

typedef struct {
    PyArrayObject *in[7]; /* z, node, lambda, exemplars, start, height, lmax; then top */
    PyArrayObject *top;
    sl_member_rules rules;
} member_arguments;

/* Shapes that the core relies on; 0, or -1 with an exception. */
static int
member_check(member_arguments *a, int variant, double most)
{
    const npy_intp K = PyArray_DIM(a->top, 0);
    const int64_t *start = PyArray_DATA(a->in[4]);

    if (sl_same_length(a->in[1], 0, a->in[0], 0, "node", "z") < 0 ||
        sl_same_length(a->in[2], 0, a->in[0], 0, "lambda_", "z") < 0 ||
        sl_same_length(a->in[3], 1, a->in[0], 1, "exemplars", "z") < 0 ||
        sl_same_length(a->in[5], 0, a->in[6], 0, "height", "lmax") < 0 ||
        sl_same_length(a->in[5], 1, a->top, 0, "height", "top") < 0) {
        return -1;
    }
    if (PyArray_DIM(a->in[4], 0) != K + 1 || start[0] < 0 || start[K] > PyArray_DIM(a->in[3], 0) ||
        (variant != SL_MEMBER_NEW_POINT && variant != SL_MEMBER_ALL_POINTS) || !(most > 0.0)) {
        PyErr_SetString(PyExc_ValueError,
                        "start must have one entry more than top and lie within exemplars, variant be 0 "
                        "or 1, and most be positive");
        return -1;
    }
    for (npy_intp k = 0; k < K; k++) {
        if (start[k + 1] <= start[k]) {
            PyErr_Format(PyExc_ValueError, "concept %zd has no exemplars", (Py_ssize_t)k);
            return -1;
        }
    }
    a->rules = (sl_member_rules){(sl_member)variant,     PyArray_DIM(a->in[5], 0), PyArray_DATA(a->in[5]),
                                 PyArray_DATA(a->in[6]), PyArray_DATA(a->top),     most};
    return 0;
}

/* All rows into P; 0, or -1 with an exception. */
static int
member_run(const member_arguments *a, PyArrayObject *P, int n_threads)
{
    const npy_intp n = PyArray_DIM(a->in[0], 0), rows_a_call = 1 << 14;
    sl_exemplars *exemplars = NULL;
    sl_status status = SL_OK;
    int failed;

    Py_BEGIN_ALLOW_THREADS
    status = sl_exemplars_new(PyArray_DATA(a->in[3]), PyArray_DATA(a->in[4]), PyArray_DIM(a->top, 0),
                              PyArray_DIM(a->in[0], 1), &exemplars);
    Py_END_ALLOW_THREADS
    failed = sl_raise(status, "exemplars must be finite") < 0;
    for (npy_intp begin = 0; !failed && begin < n; begin += rows_a_call) {
        const npy_intp end = begin + rows_a_call < n ? begin + rows_a_call : n;
        Py_BEGIN_ALLOW_THREADS
        status = sl_membership(exemplars, PyArray_DATA(a->in[0]), n, PyArray_DATA(a->in[1]), PyArray_DATA(a->in[2]),
                               &a->rules, begin, end, PyArray_TYPE(P) == NPY_FLOAT, PyArray_DATA(P), n_threads);
        Py_END_ALLOW_THREADS
        failed = sl_raise(status, "z must be finite, node lie in [0, len(lmax)), lambda_ be at "
                                  "least 0, and n_threads at least 1") < 0 ||
                 PyErr_CheckSignals() < 0;
    }
    sl_exemplars_free(exemplars);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(doc_membership,
             "membership(z, node, lambda_, exemplars, start, height, lmax, top, *, variant=0, most=1.0, single=False, "
             "n_threads=1)\n--\n\n(n, K) soft membership; see semanticlens.alignment.membership.");

static PyObject *
py_membership(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"z",   "node",    "lambda_", "exemplars", "start",     "height", "lmax",
                            "top", "variant", "most",    "single",    "n_threads", NULL};
    static const int types[8] = {NPY_DOUBLE, NPY_INT64,  NPY_DOUBLE, NPY_DOUBLE,
                                 NPY_INT64,  NPY_DOUBLE, NPY_DOUBLE, NPY_DOUBLE};
    PyObject *given[8], *result = NULL;
    PyArrayObject *P = NULL;
    member_arguments a = {
        {NULL, NULL, NULL, NULL, NULL, NULL, NULL}, NULL, {SL_MEMBER_NEW_POINT, 0, NULL, NULL, NULL, 1.0}};
    int variant = 0, single = 0, n_threads = 1;
    double most = 1.0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOO|$idpi:membership", names, &given[0], &given[1], &given[2],
                                     &given[3], &given[4], &given[5], &given[6], &given[7], &variant, &most, &single,
                                     &n_threads)) {
        return NULL;
    }
    for (int t = 0; t < 8; t++) {
        PyArrayObject *array = sl_array(given[t], types[t], t == 0 || t == 3 || t == 5 ? 2 : 1, names[t]);
        if (array == NULL) {
            goto done;
        }
        *(t < 7 ? &a.in[t] : &a.top) = array;
    }
    if (member_check(&a, variant, most) < 0) {
        goto done;
    }
    P = (PyArrayObject *)PyArray_SimpleNew(2, ((npy_intp[]){PyArray_DIM(a.in[0], 0), PyArray_DIM(a.top, 0)}),
                                           single ? NPY_FLOAT : NPY_DOUBLE);
    if (P != NULL && (PyArray_SIZE(P) == 0 || member_run(&a, P, n_threads) == 0)) {
        result = Py_NewRef((PyObject *)P);
    }
done:
    drop(a.in, 7);
    Py_XDECREF((PyObject *)a.top);
    Py_XDECREF((PyObject *)P);
    return result;
}

#define ENTRY(name) {#name, (PyCFunction)(void (*)(void))py_##name, METH_VARARGS | METH_KEYWORDS, doc_##name}

PyMethodDef sl_hdbscan_methods[] = {
    ENTRY(nearest),     ENTRY(spanning_tree), ENTRY(single_linkage), ENTRY(condense),       ENTRY(tree_nodes),
    ENTRY(tree_select), ENTRY(tree_labels),   ENTRY(membership),     {NULL, NULL, 0, NULL},
};
