/*
 * liblzo2's functions in the form that zramcore's compiled data path calls: see zramcore.interfaces.NativeCodec.
 *
 * Both run in several threads at once and without the GIL, so they touch nothing but their arguments.
 *
 * Copyright (C) 2026 the zramcore contributors; GPL-2.0-or-later, see LICENSE.
 */
#include <Python.h>
#include <lzo/lzo1x.h>

/* What liblzo2 may make of a page that it cannot compress; lzo1x_1_compress is not told where its output ends. */
static int most_bytes(int page_size)
{
    return page_size + page_size / 16 + 64 + 3;
}

static int compress(void *state, const char *page, char *out, int page_size, int out_size, int level)
{
    (void)level;
    if (page_size < 0 || out_size < most_bytes(page_size))
        return 0;
    lzo_uint size = (lzo_uint)out_size;
    int answer = lzo1x_1_compress((const lzo_bytep)page, (lzo_uint)page_size, (lzo_bytep)out, &size, state);
    return answer == LZO_E_OK ? (int)size : 0;
}

static int decompress(const char *data, char *page, int data_size, int page_size)
{
    if (data_size < 0 || page_size < 0)
        return -1;
    lzo_uint size = (lzo_uint)page_size;
    int answer = lzo1x_decompress_safe((const lzo_bytep)data, (lzo_uint)data_size, (lzo_bytep)page, &size, NULL);
    return answer == LZO_E_OK ? (int)size : -1;
}

static PyObject *codec_most_bytes(PyObject *Py_UNUSED(module), PyObject *page_size)
{
    long size = PyLong_AsLong(page_size);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (size < 1 || size > 1 << 24)
        return PyErr_Format(PyExc_ValueError, "a page has 1 byte to 16 MiB, not %ld bytes", size);
    return PyLong_FromLong(most_bytes((int)size));
}

static PyMethodDef methods[] = {
    {"most_bytes", codec_most_bytes, METH_O, "most_bytes(page_size): the longest that such a page can become."},
    {0},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "zramcore_lzo._codec",
    .m_doc = "LZO1X-1 of liblzo2 as C functions, by their addresses.",
    .m_size = -1,
    .m_methods = methods,
};

/* `value`, which is given up, under `name`; 0, or -1 with the error set. */
static int add(PyObject *made, const char *name, PyObject *value)
{
    int answer = value ? PyModule_AddObjectRef(made, name, value) : -1;
    Py_XDECREF(value);
    return answer;
}

PyMODINIT_FUNC PyInit__codec(void)
{
    if (lzo_init() != LZO_E_OK) {
        PyErr_SetString(PyExc_ImportError, "liblzo2 was built for another compiler or machine than this extension");
        return NULL;
    }
    PyObject *made = PyModule_Create(&module);
    if (made && (add(made, "compress", PyLong_FromVoidPtr((void *)(uintptr_t)compress)) ||
                 add(made, "decompress", PyLong_FromVoidPtr((void *)(uintptr_t)decompress)) ||
                 add(made, "state_size", PyLong_FromLong(LZO1X_1_MEM_COMPRESS)) ||
                 add(made, "lzo_version", PyUnicode_FromString(lzo_version_string()))))
        Py_CLEAR(made);
    return made;
}
