/* Codec: a pair of C functions that a compressor plugin has handed over, and the bare loops that measure them. */
#include "_batch.h"

static int codec_init(Codec *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"compress", "decompress", "state_size", "level", "most_bytes", "quick", NULL};
    unsigned long long compress, decompress;
    int quick;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KKniip", names, &compress, &decompress, &self->state_size,
                                     &self->level, &self->most_bytes, &quick))
        return -1;
    if (!compress || !decompress || self->state_size < 0 || self->most_bytes < 1) {
        PyErr_SetString(PyExc_ValueError, "a codec needs two addresses, a state size and the most bytes of a page");
        return -1;
    }
    self->compress = (compress_fn)(uintptr_t)compress;
    self->decompress = (decompress_fn)(uintptr_t)decompress;
    self->quick = quick;
    return 0;
}

static PyType_Slot codec_slots[] = {
    {Py_tp_doc, "Codec(compress, decompress, state_size, level, most_bytes, quick): C functions as addresses; see "
                "interfaces.NativeCodec."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, codec_init},
    {Py_tp_dealloc, free_object},
    {0, NULL},
};
PyType_Spec codec_spec = {
    .name = "zramcore._batch.Codec", .basicsize = sizeof(Codec), .flags = Py_TPFLAGS_DEFAULT, .slots = codec_slots};
PyTypeObject *codec_type;

/* Scratch for one thread's calls of a codec; to be freed. Not cleared: a codec's function prepares it itself. */
void *codec_state(Codec *codec)
{
    return aligned_alloc(64, ((size_t)codec->state_size + 64) / 64 * 64);
}

/* bare_compress(codec, data, page_size, sizes): compress each page over the last one's bytes; sizes is uint32 */
PyObject *bare_compress(PyObject *Py_UNUSED(module), PyObject *args)
{
    Codec *codec;
    Py_buffer data, sizes;
    int page_size;
    if (!PyArg_ParseTuple(args, "O!y*iw*", codec_type, &codec, &data, &page_size, &sizes))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t count = page_size > 0 ? data.len / page_size : 0, done = 0;
    void *state = codec_state(codec);
    char *out = malloc((size_t)codec->most_bytes);
    if (!state || !out) {
        PyErr_NoMemory();
    } else if (check_length("sizes", sizes.len, count * 4)) {
        Py_BEGIN_ALLOW_THREADS
        for (; done < count; done++) {
            const char *page = (const char *)data.buf + done * page_size;
            int size = codec->compress(state, page, out, page_size, codec->most_bytes, codec->level);
            if (size <= 0)
                break;
            ((uint32_t *)sizes.buf)[done] = (uint32_t)size;
        }
        Py_END_ALLOW_THREADS
        result = PyLong_FromSsize_t(done);
    }
    free(state);
    free(out);
    PyBuffer_Release(&data);
    PyBuffer_Release(&sizes);
    return result;
}

/* bare_decompress(codec, packed, offsets, sizes, page_size, out): objects of `packed` to consecutive pages of `out` */
PyObject *bare_decompress(PyObject *Py_UNUSED(module), PyObject *args)
{
    Codec *codec;
    Py_buffer packed, offsets, sizes, out;
    int page_size;
    if (!PyArg_ParseTuple(args, "O!y*y*y*iw*", codec_type, &codec, &packed, &offsets, &sizes, &page_size, &out))
        return NULL;
    PyObject *result = NULL;
    Py_ssize_t count = sizes.len / 4, done = 0;
    const uint32_t *at = offsets.buf, *length = sizes.buf;
    bool fits = page_size > 0 && check_length("offsets", offsets.len, count * 4) &&
                check_length("out", out.len, count * page_size);
    for (Py_ssize_t i = 0; fits && i < count; i++)
        fits = check_length("packed", packed.len, (Py_ssize_t)at[i] + (Py_ssize_t)length[i]);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        while (done < count && codec->decompress((const char *)packed.buf + at[done], (char *)out.buf + done * page_size,
                                                 (int)length[done], page_size) == page_size)
            done++;
        Py_END_ALLOW_THREADS
        result = PyLong_FromSsize_t(done);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "page_size must be more than 0");
    }
    PyBuffer_Release(&packed);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&sizes);
    PyBuffer_Release(&out);
    return result;
}
