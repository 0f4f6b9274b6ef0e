/*
 * The compiled batch path: what datapath.py and readpath.py do a page at a time in Python, for many pages in one call.
 *
 * A Codec is a pair of C functions that a compressor plugin has handed over as addresses. Pages is an initialised
 * device as seen from here: the columns of its slot table, its allocator's arena, its codec. Python decides which rows
 * a call may touch, and holds their locks; the calls here only move bytes, without the GIL when there are many pages.
 *
 * Nothing of this is needed: without the extension the same work is done in Python, with the same results.
 *
 * Ownership: Pages holds buffers (Py_buffer) of the columns and the arena until `release`, which the device calls with
 * all its slots locked. Arguments are checked against their buffers before any byte is touched.
 *
 * Workers: a Crew of threads that know nothing of Python. A job is cut into parts; the caller works too, so a job ends
 * even if no worker ever wakes, and workers take no lock but the crew's own: no pass can deadlock with them.
 */
#include "_batch.h"

void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef module_methods[] = {
    {"change", batch_change, METH_VARARGS,
     "change(old_flags, flags, count): how pages_stored, compr_data_size, same_pages and huge_pages change, and the number "
     "of new huge pages."},
    {"bare_compress", bare_compress, METH_VARARGS,
     "bare_compress(codec, data, page_size, sizes): the codec over all pages, and nothing else; returns pages done."},
    {"bare_decompress", bare_decompress, METH_VARARGS,
     "bare_decompress(codec, packed, offsets, sizes, page_size, out): likewise back; returns pages done."},
    {0},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "zramcore._batch",
    .m_doc = "Batches of pages in compiled code; see the head of _batch.c.",
    .m_size = -1,
    .m_methods = module_methods,
};

/* Add a new type to the module; a reference of its own to it, or NULL. */
static PyTypeObject *add_type(PyObject *made, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type && PyModule_AddObjectRef(made, name, type))
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

PyMODINIT_FUNC PyInit__batch(void)
{
    PyObject *made = PyModule_Create(&module);
    if (!made)
        return NULL;
    PyTypeObject *pages_type = NULL;
    static const struct {
        const char *name;
        long value;
    } layout[] = {{"SIZE_MASK", SIZE_MASK}, {"SAME", SAME}, {"WB", WB},     {"PP_SLOT", PP_SLOT},
                  {"HUGE", HUGE_PAGE},      {"IDLE", IDLE}, {"PRIORITY_MASK", PRIORITY_MASK},
                  {"INCOMPRESSIBLE", INCOMPRESSIBLE},   {"CALLS", CALLS}};
    bool ready = (codec_type = add_type(made, "Codec", &codec_spec)) && (pages_type = add_type(made, "Pages", &pages_spec));
    for (size_t i = 0; ready && i < sizeof layout / sizeof *layout; i++)
        ready = !PyModule_AddIntConstant(made, layout[i].name, layout[i].value);
    Py_XDECREF((PyObject *)pages_type);
    if (!ready)
        Py_CLEAR(made);
    return made;
}
