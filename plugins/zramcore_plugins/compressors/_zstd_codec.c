/*
 * zstd's functions in the form that zramcore's compiled data path calls: see zramcore.interfaces.NativeCodec.
 *
 * Nothing is linked: `bind` is given the addresses of the functions, once, before any of them is called. Contexts belong to
 * threads, as making one for each page would cost a third more; a thread's are freed when it ends.
 */
#include <Python.h>

#include <pthread.h>
#include <stdlib.h>

#define UNKNOWN_SIZE_AND_ERROR ((unsigned long long)-2) /* what ZSTD_getFrameContentSize says from here on is no size */

static struct {
    void *(*create_compressor)(void);
    size_t (*free_compressor)(void *);
    void *(*create_decompressor)(void);
    size_t (*free_decompressor)(void *);
    size_t (*compress)(void *context, void *out, size_t out_size, const void *page, size_t page_size, int level);
    size_t (*decompress)(void *context, void *page, size_t page_size, const void *data, size_t data_size);
    unsigned long long (*content_size)(const void *data, size_t data_size);
    size_t (*frame_size)(const void *data, size_t data_size);
} zstd;

typedef struct {
    void *compressor, *decompressor;
} Contexts;

static pthread_key_t key;

static void free_contexts(void *argument)
{
    Contexts *contexts = argument;
    if (contexts->compressor)
        zstd.free_compressor(contexts->compressor);
    if (contexts->decompressor)
        zstd.free_decompressor(contexts->decompressor);
    free(contexts);
}

/* The calling thread's contexts, either of which may not be made yet; NULL when there is no memory. */
static Contexts *contexts_of_thread(void)
{
    Contexts *contexts = pthread_getspecific(key);
    if (!contexts && (contexts = calloc(1, sizeof *contexts)) && pthread_setspecific(key, contexts)) {
        free(contexts);
        contexts = NULL;
    }
    return contexts;
}

static int compress(void *state, const char *page, char *out, int page_size, int out_size, int level)
{
    (void)state;
    Contexts *contexts = contexts_of_thread();
    if (!contexts || page_size < 0 || out_size < 0)
        return 0;
    if (!contexts->compressor && !(contexts->compressor = zstd.create_compressor()))
        return 0;
    size_t size = zstd.compress(contexts->compressor, out, (size_t)out_size, page, (size_t)page_size, level);
    return size <= (size_t)out_size ? (int)size : 0; /* errors are the greatest numbers that there are */
}

static int decompress(const char *data, char *page, int data_size, int page_size)
{
    Contexts *contexts = contexts_of_thread();
    if (!contexts || data_size < 0 || page_size < 0)
        return -1;
    /* Exactly one frame, which says that it holds a page: nothing else was ever stored. */
    size_t length = (size_t)data_size;
    unsigned long long claimed = zstd.content_size(data, length);
    if (claimed >= UNKNOWN_SIZE_AND_ERROR || claimed != (unsigned long long)page_size ||
        zstd.frame_size(data, length) != length)
        return -1;
    if (!contexts->decompressor && !(contexts->decompressor = zstd.create_decompressor()))
        return -1;
    size_t size = zstd.decompress(contexts->decompressor, page, (size_t)page_size, data, length);
    return size <= (size_t)page_size ? (int)size : -1;
}

static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long at[8];
    if (!PyArg_ParseTuple(args, "KKKKKKKK", &at[0], &at[1], &at[2], &at[3], &at[4], &at[5], &at[6], &at[7]))
        return NULL;
    for (int i = 0; i < 8; i++)
        if (!at[i])
            return PyErr_Format(PyExc_ValueError, "address %d is 0", i);
    zstd.create_compressor = (void *(*)(void))(uintptr_t)at[0];
    zstd.free_compressor = (size_t(*)(void *))(uintptr_t)at[1];
    zstd.create_decompressor = (void *(*)(void))(uintptr_t)at[2];
    zstd.free_decompressor = (size_t(*)(void *))(uintptr_t)at[3];
    zstd.compress = (size_t(*)(void *, void *, size_t, const void *, size_t, int))(uintptr_t)at[4];
    zstd.decompress = (size_t(*)(void *, void *, size_t, const void *, size_t))(uintptr_t)at[5];
    zstd.content_size = (unsigned long long (*)(const void *, size_t))(uintptr_t)at[6];
    zstd.frame_size = (size_t(*)(const void *, size_t))(uintptr_t)at[7];
    return Py_BuildValue("KK", (unsigned long long)(uintptr_t)compress, (unsigned long long)(uintptr_t)decompress);
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS,
     "bind(createCCtx, freeCCtx, createDCtx, freeDCtx, compressCCtx, decompressDCtx, getFrameContentSize, "
     "findFrameCompressedSize): take the addresses of these functions; returns those of compress and decompress."},
    {0},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "zramcore_plugins.compressors._zstd_codec",
    .m_doc = "zstd as C functions for the compiled data path, by their addresses.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__zstd_codec(void)
{
    if (pthread_key_create(&key, free_contexts)) {
        PyErr_SetString(PyExc_ImportError, "no room for what belongs to a thread");
        return NULL;
    }
    return PyModule_Create(&module);
}
