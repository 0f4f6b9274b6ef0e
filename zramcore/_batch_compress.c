/* Compressing: what pages become, as objects side by side in one buffer. No row is looked at, and no lock is held. */
#include "_batch.h"

/* The word that fills the page, if one does. A first word that differs from the last settles nearly every page. */
bool same_filled(const char *page, int page_size, uint64_t *word)
{
    uint64_t first, last;
    memcpy(&first, page, WORD);
    memcpy(&last, page + page_size - WORD, WORD);
    if (first != last || memcmp(page, page + WORD, (size_t)page_size - WORD))
        return false;
    *word = first;
    return true;
}

typedef struct {
    Pages *pages;
    const char *data; /* consecutive pages, or NULL: each page has its own buffer in `sources` */
    const Py_buffer *sources;
    char *packed;
    Py_ssize_t count;
    uint32_t *offsets, *flags;
    uint64_t *words;
    Py_ssize_t stride;  /* bytes of `packed` that each page may need */
    atomic_long failed; /* position of a page that could not be compressed, or -1 */
} CompressJob;

/* One page to `out`; its size and flags, or 0 when the codec failed. */
static uint32_t compress_to(Pages *self, void *state, const char *page, char *out, uint64_t *word)
{
    Codec *codec = self->codec;
    if (same_filled(page, self->page_size, word))
        return SAME;
    *word = 0;
    int size = codec->compress(state, page, out, self->page_size, codec->most_bytes, codec->level);
    if (size <= 0 || size > codec->most_bytes)
        return 0;
    if (size < self->huge_class_size)
        return (uint32_t)size;
    memcpy(out, page, (size_t)self->page_size);
    return (uint32_t)self->page_size | HUGE_PAGE;
}

static void compress_part(void *argument, int part)
{
    CompressJob *job = argument;
    Pages *self = job->pages;
    Py_ssize_t from = (Py_ssize_t)part * self->part_pages;
    Py_ssize_t to = from + self->part_pages < job->count ? from + self->part_pages : job->count;
    void *state = codec_state(self->codec);
    size_t end = (size_t)from * (size_t)job->stride;
    for (Py_ssize_t i = from; i < to; i++) {
        const char *page = job->sources ? job->sources[i].buf : job->data + i * self->page_size;
        uint32_t flags = state ? compress_to(self, state, page, job->packed + end, &job->words[i]) : 0;
        if (!flags) {
            atomic_store(&job->failed, (long)i);
            break;
        }
        job->flags[i] = flags;
        job->offsets[i] = (uint32_t)end;
        end += flags & SIZE_MASK;
    }
    free(state);
}

static Py_ssize_t stride_of(Pages *self)
{
    return self->codec->most_bytes > self->page_size ? self->codec->most_bytes : self->page_size;
}

static void release_all(Py_buffer *views, Py_ssize_t count)
{
    while (count-- > 0)
        PyBuffer_Release(&views[count]);
}

/*
 * The buffers of a list of pages, each exactly one page, and how many they are; NULL with the error set. To be given to
 * release_all and freed.
 */
static Py_buffer *page_buffers(Pages *self, PyObject *pages, Py_ssize_t *size)
{
    Py_ssize_t count = PyList_Size(pages), got = 0;
    Py_buffer *views = malloc(sizeof *views * (size_t)(count + 1));
    if (!views) {
        PyErr_NoMemory();
        return NULL;
    }
    for (; got < count; got++) {
        if (PyObject_GetBuffer(PyList_GetItem(pages, got), &views[got], PyBUF_CONTIG_RO))
            break;
        if (views[got].len != self->page_size) {
            PyErr_Format(PyExc_ValueError, "page %zd of the list has %zd bytes", got, views[got].len);
            got++;
            break;
        }
    }
    *size = count;
    if (!PyErr_Occurred())
        return views;
    release_all(views, got);
    free(views);
    return NULL;
}

/* Compress what `job` names, once the buffers it writes to are known to be long enough; false with the error set. */
static bool compress_job(CompressJob *job, const Py_buffer *views)
{
    Pages *self = job->pages;
    Py_ssize_t count = job->count;
    job->stride = stride_of(self);
    job->packed = views[0].buf;
    job->offsets = views[1].buf;
    job->flags = views[2].buf;
    job->words = views[3].buf;
    job->failed = -1;
    if (!check_length("packed", views[0].len, count * job->stride) ||
        !check_length("offsets", views[1].len, count * 4) || !check_length("flags", views[2].len, count * 4) ||
        !check_length("words", views[3].len, count * 8))
        return false;
    if (count * job->stride > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many pages for one call");
        return false;
    }
    int parts = parts_of(self, count);
    Py_BEGIN_ALLOW_THREADS
    crew_run(&self->crew, self->workers, compress_part, job, parts);
    Py_END_ALLOW_THREADS
    if (job->failed < 0)
        return true;
    PyErr_Format(PyExc_ValueError, "page %ld of the batch could not be compressed", (long)job->failed);
    return false;
}

/* compress(data, packed, offsets, flags, words): `data` is whole pages, or a list of pages */
PyObject *pages_compress(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[4], data, *sources = NULL;
    int got = 0;
    bool good = false;
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "compress takes data, packed, offsets, flags, words");
        return NULL;
    }
    CompressJob job = {.pages = self};
    if (PyList_Check(args[0])) {
        if (!(sources = page_buffers(self, args[0], &job.count)))
            return NULL;
    } else {
        if (PyObject_GetBuffer(args[0], &data, PyBUF_CONTIG_RO))
            return NULL;
        job.data = data.buf;
        job.count = data.len / self->page_size;
    }
    job.sources = sources;
    while (got < 4 && !PyObject_GetBuffer(args[got + 1], &views[got], PyBUF_CONTIG))
        got++;
    if (got == 4)
        good = compress_job(&job, views);
    release_all(views, got);
    release_all(sources ? sources : &data, sources ? job.count : 1);
    free(sources);
    return good ? Py_NewRef(Py_None) : NULL;
}

/*
 * Compress one page with the GIL, giving it up only for a codec that takes long: its size and flags, and in `scratch`, which
 * is to be freed, the bytes of an object that is not to be stored raw. The error is set when it fails.
 */
bool compress_small(Pages *self, const char *page, char **scratch, uint32_t *flags)
{
    Codec *codec = self->codec;
    void *state = codec_state(codec);
    char *out = *scratch = malloc((size_t)codec->most_bytes);
    int size = 0;
    if (!state || !out) {
        free(state);
        PyErr_NoMemory();
        return false;
    }
    if (codec->quick) {
        size = codec->compress(state, page, out, self->page_size, codec->most_bytes, codec->level);
    } else {
        Py_BEGIN_ALLOW_THREADS
        size = codec->compress(state, page, out, self->page_size, codec->most_bytes, codec->level);
        Py_END_ALLOW_THREADS
    }
    free(state);
    if (size <= 0 || size > codec->most_bytes) {
        PyErr_SetString(PyExc_ValueError, "the page could not be compressed");
        return false;
    }
    *flags = size < self->huge_class_size ? (uint32_t)size : (uint32_t)self->page_size | HUGE_PAGE;
    return true;
}

/* compress_page(page) -> the word of a same-filled page (int), the compressed bytes, or None: store it raw */
PyObject *pages_compress_page(Pages *self, PyObject *page)
{
    if (!PyBytes_CheckExact(page) || PyBytes_Size(page) != self->page_size) {
        PyErr_SetString(PyExc_ValueError, "compress_page takes one page, as bytes");
        return NULL;
    }
    const char *data = PyBytes_AsString(page);
    uint64_t word;
    if (same_filled(data, self->page_size, &word))
        return PyLong_FromUnsignedLongLong(word);
    char *scratch = NULL;
    uint32_t flags;
    PyObject *packed = NULL;
    if (compress_small(self, data, &scratch, &flags))
        packed = flags & HUGE_PAGE ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(scratch, flags & SIZE_MASK);
    free(scratch);
    return packed;
}
