/* What this build is: compiler, tiers, OpenMP. */
#include "py_common.h"
#include "sl/sl_cpu.h"

#ifdef __clang__
#define COMPILER __VERSION__ /* starts with "Clang" or a vendor's name for it */
#else
#define COMPILER "GCC " __VERSION__
#endif

PyDoc_STRVAR(doc_build_info, "build_info()\n--\n\n"
                             "Compiler, instruction-set tiers and OpenMP of this build; see semanticlens.build_info.");

/* Appends the names to `all` and those that run here to `supported`; either may be NULL. */
static int
list_tiers(const char *const *name, PyObject *all, PyObject *supported)
{
    for (; *name != NULL; name++) {
        PyObject *text = PyUnicode_FromString(*name);
        const int failed = text == NULL || (all != NULL && PyList_Append(all, text) < 0) ||
                           (sl_tier_supported(*name) && PyList_Append(supported, text) < 0);
        Py_XDECREF(text);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
py_build_info(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyObject *tiers = PyList_New(0), *supported = PyList_New(0), *by_name = PyList_New(0), *result = NULL;
#ifdef SL_MARCH_NATIVE
    const int native = 1;
#else
    const int native = 0;
#endif
#ifdef NDEBUG
    const int debug = 0;
#else
    const int debug = 1;
#endif

    if (tiers == NULL || supported == NULL || by_name == NULL || list_tiers(sl_tier_names(), tiers, supported) < 0 ||
        list_tiers(sl_tier_by_name(), NULL, by_name) < 0) {
        goto done;
    }
    result =
        Py_BuildValue("{s:s,s:s,s:O,s:O,s:O,s:O,s:O,s:O}", "compiler", COMPILER, "tier", sl_tier_active(), "tiers",
                      tiers, "supported", supported, "by_name", by_name, "openmp", sl_has_openmp() ? Py_True : Py_False,
                      "march_native", native ? Py_True : Py_False, "debug", debug ? Py_True : Py_False);
done:
    Py_XDECREF(tiers);
    Py_XDECREF(supported);
    Py_XDECREF(by_name);
    return result;
}

PyMethodDef sl_build_methods[] = {
    {"build_info", py_build_info, METH_NOARGS, doc_build_info},
    {NULL, NULL, 0, NULL},
};
