/* The compiled core of the zsmalloc pool. Limited API of Python 3.11: one build serves every later Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef zspool_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_zspool",
    .m_doc = "The compiled core of the zsmalloc pool.",
};

PyMODINIT_FUNC PyInit__zspool(void)
{
    return PyModuleDef_Init(&zspool_module);
}
