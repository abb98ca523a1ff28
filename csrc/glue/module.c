/* semanticlens._core: initialisation only.  Each family brings its method table. */
#define SL_IMPORTS_NUMPY
#include "py_common.h"
#include "sl/sl_cpu.h"

#include <stdlib.h>

extern PyMethodDef sl_adjoint_methods[];
extern PyMethodDef sl_build_methods[];
extern PyMethodDef sl_alignment_methods[];
extern PyMethodDef sl_contract_methods[];
extern PyMethodDef sl_cosine_methods[];
extern PyMethodDef sl_elementwise_methods[];
extern PyMethodDef sl_hdbscan_methods[];
extern PyMethodDef sl_matmul_methods[];
extern PyMethodDef sl_measures_methods[];
extern PyMethodDef sl_nn_methods[];
extern PyMethodDef sl_relevance_methods[];
extern PyMethodDef sl_bootstrap_methods[];
extern PyMethodDef sl_scores_methods[];
extern PyMethodDef sl_split_methods[];
extern PyMethodDef sl_topm_methods[];
extern PyMethodDef sl_transformer_methods[];
extern PyMethodDef sl_winograd_methods[];

/* One per line, so that families can be added side by side. */
/* clang-format off */
static PyMethodDef *const families[] = {
    sl_adjoint_methods,
    sl_alignment_methods,
    sl_build_methods,
    sl_contract_methods,
    sl_cosine_methods,
    sl_elementwise_methods,
    sl_hdbscan_methods,
    sl_matmul_methods,
    sl_measures_methods,
    sl_nn_methods,
    sl_relevance_methods,
    sl_bootstrap_methods,
    sl_scores_methods,
    sl_split_methods,
    sl_topm_methods,
    sl_transformer_methods,
    sl_winograd_methods,
};
/* clang-format on */

static int
select_tier(void)
{
    const char *wanted = getenv("SEMANTICLENS_TIER");

    if (wanted == NULL || *wanted == '\0') {
        return sl_tier_select(NULL) == SL_OK ? 0 : -1;
    }
    if (sl_tier_select(wanted) != SL_OK) {
        const char *fault = sl_tier_fault(wanted);
        PyErr_Format(PyExc_ImportError,
                     "SEMANTICLENS_TIER=%s: this build has no such tier, or this machine cannot run it (%s); unset the "
                     "variable, or use 'baseline'",
                     wanted,
                     fault != NULL ? fault : "the kernel refused the tile registers, or they failed their check");
        return -1;
    }
    return 0;
}

static int
core_exec(PyObject *module)
{
    if (_import_array() < 0 || select_tier() < 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (PyModule_AddFunctions(module, families[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, (void *)core_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "semanticlens._core",
    .m_doc = "C kernels; use the package, not this module.",
    .m_slots = core_slots,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
