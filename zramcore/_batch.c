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
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The layout of slot_table.py's flags; the module tells it, and a test compares the two. */
#define SIZE_MASK ((1u << 17) - 1)
#define SAME (1u << 17)
#define WB (1u << 18)
#define PP_SLOT (1u << 19)
#define HUGE_PAGE (1u << 20)
#define IDLE (1u << 21)
#define PRIORITY_MASK (3u << 23)
#define ELSEWHERE (WB | PRIORITY_MASK) /* not an object of the primary algorithm: left to Python */

#define WORD 8
#define UNSET UINT64_MAX /* a handle that was not given */

/* Codec ----------------------------------------------------------------------------------------------------------- */

typedef int (*compress_fn)(void *state, const char *page, char *out, int page_size, int out_size, int level);
typedef int (*decompress_fn)(const char *data, char *page, int data_size, int page_size);

typedef struct {
    PyObject_HEAD
    compress_fn compress;
    decompress_fn decompress;
    Py_ssize_t state_size;
    int level;
    int most_bytes; /* of a compressed page */
    bool quick;     /* a page takes so little that giving up the GIL for it costs more */
} Codec;

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

static void codec_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyType_Slot codec_slots[] = {
    {Py_tp_doc, "Codec(compress, decompress, state_size, level, most_bytes, quick): C functions as addresses; see "
                "interfaces.NativeCodec."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, codec_init},
    {Py_tp_dealloc, codec_dealloc},
    {0, NULL},
};
static PyType_Spec codec_spec = {
    .name = "zramcore._batch.Codec", .basicsize = sizeof(Codec), .flags = Py_TPFLAGS_DEFAULT, .slots = codec_slots};
static PyTypeObject *codec_type;

/* Scratch for one thread's calls of a codec; to be freed. Not cleared: a codec's function prepares it itself. */
static void *codec_state(Codec *codec)
{
    return aligned_alloc(64, ((size_t)codec->state_size + 64) / 64 * 64);
}

/* Crew: the workers ----------------------------------------------------------------------------------------------- */

typedef void (*part_fn)(void *job, int part);

typedef struct {
    pthread_mutex_t busy; /* held by the one job that is being worked on */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake, done;
    pthread_t *threads;
    int count; /* workers that there are */
    int seats; /* workers that may still join the job */
    int at_work;
    bool stop;   /* the workers end */
    bool closed; /* there will be none again */
    unsigned long round;
    part_fn run;
    void *job;
    int parts;
    atomic_int next;
    pid_t owner; /* a forked child has no workers */
} Crew;

static void crew_take_parts(Crew *crew, part_fn run, void *job, int parts)
{
    int part;
    while ((part = atomic_fetch_add(&crew->next, 1)) < parts)
        run(job, part);
}

static void *crew_worker(void *argument)
{
    Crew *crew = argument;
    unsigned long seen = 0;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (!crew->stop && (crew->round == seen || !crew->run || !crew->seats))
            pthread_cond_wait(&crew->wake, &crew->lock);
        if (crew->stop)
            break;
        seen = crew->round;
        crew->seats--;
        part_fn run = crew->run;
        void *job = crew->job;
        int parts = crew->parts;
        crew->at_work++;
        pthread_mutex_unlock(&crew->lock);
        crew_take_parts(crew, run, job, parts);
        pthread_mutex_lock(&crew->lock);
        if (--crew->at_work == 0)
            pthread_cond_signal(&crew->done);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void crew_init(Crew *crew)
{
    memset(crew, 0, sizeof *crew);
    pthread_mutex_init(&crew->busy, NULL);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->wake, NULL);
    pthread_cond_init(&crew->done, NULL);
}

/* Have `wanted` workers; fewer when the system gives no more threads. Nobody else may use the crew meanwhile. */
static void crew_grow(Crew *crew, int wanted)
{
    pthread_t *threads = realloc(crew->threads, sizeof *threads * (size_t)wanted);
    if (!threads)
        return;
    crew->threads = threads;
    sigset_t all, before; /* signals are for Python's main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (crew->count < wanted && !pthread_create(&threads[crew->count], NULL, crew_worker, crew))
        crew->count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    crew->owner = getpid();
}

/* End the workers, after the job at hand; later jobs are done by their callers alone. */
static void crew_stop(Crew *crew)
{
    if (crew->owner == 0 || crew->owner == getpid())
        pthread_mutex_lock(&crew->busy);
    crew->closed = true;
    if (crew->count && crew->owner == getpid()) {
        pthread_mutex_lock(&crew->lock);
        crew->stop = true;
        pthread_cond_broadcast(&crew->wake);
        pthread_mutex_unlock(&crew->lock);
        for (int i = 0; i < crew->count; i++)
            pthread_join(crew->threads[i], NULL);
    }
    free(crew->threads);
    crew->threads = NULL;
    crew->count = 0;
    if (crew->owner == 0 || crew->owner == getpid())
        pthread_mutex_unlock(&crew->busy);
}

/* Run parts 0 .. parts - 1 of a job, on up to `workers` threads besides the calling one; returns when all are done. */
static void crew_run(Crew *crew, int workers, part_fn run, void *job, int parts)
{
    bool alone = parts < 2 || workers < 1 || (crew->count && crew->owner != getpid());
    if (alone || pthread_mutex_trylock(&crew->busy)) { /* somebody else's job has the workers */
        for (int part = 0; part < parts; part++)
            run(job, part);
        return;
    }
    if (crew->count < workers && !crew->closed)
        crew_grow(crew, workers);
    pthread_mutex_lock(&crew->lock);
    crew->run = run;
    crew->job = job;
    crew->parts = parts;
    crew->seats = workers;
    crew->round++;
    atomic_store(&crew->next, 0);
    pthread_cond_broadcast(&crew->wake);
    pthread_mutex_unlock(&crew->lock);

    crew_take_parts(crew, run, job, parts);

    pthread_mutex_lock(&crew->lock);
    crew->run = NULL; /* a worker that wakes only now finds nothing */
    while (crew->at_work)
        pthread_cond_wait(&crew->done, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    pthread_mutex_unlock(&crew->busy);
}

/* Pages ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Codec *codec;
    int page_size;
    int huge_class_size;
    int workers;
    int part_pages;
    Py_buffer flags, handles, ac_times, positions, memory;
    bool held;
    Py_ssize_t nr_slots, nr_positions;
    Crew crew;
} Pages;

static uint32_t *flags_of(Pages *self) { return self->flags.buf; }
static uint64_t *handles_of(Pages *self) { return self->handles.buf; }
static uint32_t *ac_times_of(Pages *self) { return self->ac_times.buf; }

static void pages_let_go(Pages *self)
{
    if (!self->held)
        return;
    self->held = false;
    PyBuffer_Release(&self->flags);
    PyBuffer_Release(&self->handles);
    PyBuffer_Release(&self->ac_times);
    PyBuffer_Release(&self->positions);
    PyBuffer_Release(&self->memory);
}

static int pages_init(Pages *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"codec",     "page_size", "huge_class_size", "flags",   "handles",
                            "ac_times", "positions", "memory",          "workers", "part_pages", NULL};
    PyObject *codec, *columns[5];
    Py_buffer *views[5] = {&self->flags, &self->handles, &self->ac_times, &self->positions, &self->memory};
    if (self->codec) {
        PyErr_SetString(PyExc_TypeError, "Pages is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!iiOOOOOii", names, codec_type, &codec, &self->page_size,
                                     &self->huge_class_size, &columns[0], &columns[1], &columns[2], &columns[3],
                                     &columns[4], &self->workers, &self->part_pages))
        return -1;
    if (self->page_size < WORD || self->page_size % WORD || (uint32_t)self->page_size > SIZE_MASK ||
        self->huge_class_size < 1 || self->workers < 0 || self->part_pages < 1) {
        PyErr_SetString(PyExc_ValueError, "bad page size, huge class size, workers or part");
        return -1;
    }
    for (int i = 0; i < 5; i++) {
        if (PyObject_GetBuffer(columns[i], views[i], i < 3 ? PyBUF_CONTIG : PyBUF_CONTIG_RO)) {
            while (i-- > 0)
                PyBuffer_Release(views[i]);
            return -1;
        }
    }
    self->held = true;
    self->nr_slots = self->flags.len / 4;
    self->nr_positions = self->positions.len / 8;
    if (self->handles.len / 8 != self->nr_slots || self->ac_times.len / 4 != self->nr_slots) {
        pages_let_go(self);
        PyErr_SetString(PyExc_ValueError, "the columns differ in length");
        return -1;
    }
    Py_INCREF(codec);
    self->codec = (Codec *)codec;
    crew_init(&self->crew);
    return 0;
}

static void pages_dealloc(Pages *self)
{
    if (self->codec)
        crew_stop(&self->crew);
    pages_let_go(self);
    Py_CLEAR(self->codec);
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *pages_release(Pages *self, PyObject *Py_UNUSED(none))
{
    Py_BEGIN_ALLOW_THREADS
    crew_stop(&self->crew);
    Py_END_ALLOW_THREADS
    pages_let_go(self);
    Py_RETURN_NONE;
}

/* Whether rows first .. first + count - 1 exist; sets the error when not. */
static bool check_rows(Pages *self, Py_ssize_t first, Py_ssize_t count)
{
    if (!self->held) {
        PyErr_SetString(PyExc_ValueError, "the device was reset");
        return false;
    }
    if (first < 0 || count < 0 || first > self->nr_slots || count > self->nr_slots - first) {
        PyErr_Format(PyExc_IndexError, "no rows %zd..%zd of %zd", first, first + count, self->nr_slots);
        return false;
    }
    return true;
}

static bool check_length(const char *what, Py_ssize_t length, Py_ssize_t least)
{
    if (length >= least)
        return true;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes, needs %zd", what, length, least);
    return false;
}

/* Compressing ----------------------------------------------------------------------------------------------------- */

/* The word that fills the page, if one does. A first word that differs from the last settles nearly every page. */
static bool same_filled(const char *page, int page_size, uint64_t *word)
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
    const char *data;
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
        uint32_t flags = state ? compress_to(self, state, job->data + i * self->page_size, job->packed + end,
                                             &job->words[i])
                               : 0;
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

static int parts_of(Pages *self, Py_ssize_t count)
{
    return (int)((count + self->part_pages - 1) / self->part_pages);
}

static Py_ssize_t stride_of(Pages *self)
{
    return self->codec->most_bytes > self->page_size ? self->codec->most_bytes : self->page_size;
}

/* compress(data, packed, offsets, flags, words) */
static PyObject *pages_compress(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[5];
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "compress takes data, packed, offsets, flags, words");
        return NULL;
    }
    for (; got < 5; got++)
        if (PyObject_GetBuffer(args[got], &views[got], got ? PyBUF_CONTIG : PyBUF_CONTIG_RO))
            goto done;
    CompressJob job = {.pages = self, .data = views[0].buf, .packed = views[1].buf, .offsets = views[2].buf,
                       .flags = views[3].buf, .words = views[4].buf, .stride = stride_of(self), .failed = -1};
    job.count = views[0].len / self->page_size;
    if (!check_length("packed", views[1].len, job.count * job.stride) ||
        !check_length("offsets", views[2].len, job.count * 4) || !check_length("flags", views[3].len, job.count * 4) ||
        !check_length("words", views[4].len, job.count * 8))
        goto done;
    if (job.count * job.stride > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many pages for one call");
        goto done;
    }
    int parts = parts_of(self, job.count);
    Py_BEGIN_ALLOW_THREADS
    crew_run(&self->crew, self->workers, compress_part, &job, parts);
    Py_END_ALLOW_THREADS
    if (job.failed >= 0) {
        PyErr_Format(PyExc_ValueError, "page %ld of the batch could not be compressed", (long)job.failed);
        goto done;
    }
    result = Py_NewRef(Py_None);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    return result;
}

/* compress_page(page) -> the word of a same-filled page (int), the compressed bytes, or None: store it raw */
static PyObject *pages_compress_page(Pages *self, PyObject *page)
{
    Codec *codec = self->codec;
    if (!PyBytes_CheckExact(page) || PyBytes_Size(page) != self->page_size) {
        PyErr_SetString(PyExc_ValueError, "compress_page takes one page, as bytes");
        return NULL;
    }
    const char *data = PyBytes_AsString(page);
    uint64_t word;
    if (same_filled(data, self->page_size, &word))
        return PyLong_FromUnsignedLongLong(word);
    void *state = codec_state(codec);
    char *out = malloc((size_t)codec->most_bytes);
    PyObject *packed = NULL;
    int size = 0;
    if (!state || !out) {
        PyErr_NoMemory();
        goto done;
    }
    if (codec->quick) {
        size = codec->compress(state, data, out, self->page_size, codec->most_bytes, codec->level);
    } else {
        Py_BEGIN_ALLOW_THREADS
        size = codec->compress(state, data, out, self->page_size, codec->most_bytes, codec->level);
        Py_END_ALLOW_THREADS
    }
    if (size <= 0 || size > codec->most_bytes)
        PyErr_SetString(PyExc_ValueError, "the page could not be compressed");
    else if (size >= self->huge_class_size)
        packed = Py_NewRef(Py_None);
    else
        packed = PyBytes_FromStringAndSize(out, size);
done:
    free(state);
    free(out);
    return packed;
}

/* Rows ------------------------------------------------------------------------------------------------------------ */

/*
 * prepare(first, count, old_flags, replaced, handles) -> rows that hold a backing block
 * What a write is going to replace: the rows' flags, and the handle of each object in the pool (0: none). `handles`, for
 * what it will store, is filled with UNSET.
 */
static PyObject *pages_prepare(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[3];
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "prepare takes first, count, old_flags, replaced, handles");
        return NULL;
    }
    Py_ssize_t first = PyLong_AsSsize_t(args[0]), count = PyLong_AsSsize_t(args[1]), blocks = 0;
    if (PyErr_Occurred() || !check_rows(self, first, count))
        return NULL;
    for (; got < 3; got++)
        if (PyObject_GetBuffer(args[2 + got], &views[got], PyBUF_CONTIG))
            goto done;
    if (!check_length("old_flags", views[0].len, count * 4) || !check_length("replaced", views[1].len, count * 8) ||
        !check_length("handles", views[2].len, count * 8))
        goto done;
    uint32_t *old_flags = views[0].buf;
    uint64_t *replaced = views[1].buf, *new_handles = views[2].buf;
    const uint32_t *flags = flags_of(self) + first;
    const uint64_t *handles = handles_of(self) + first;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t row = flags[i];
        old_flags[i] = row;
        replaced[i] = row & SIZE_MASK && !(row & WB) ? handles[i] : 0;
        new_handles[i] = UNSET;
        blocks += (row & WB) != 0;
    }
    result = PyLong_FromSsize_t(blocks);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    return result;
}

/*
 * assign(first, count, flags, handles, words, now) -> rows done
 * Give rows what was stored for them, up to the first UNSET handle; a same-filled one gets its word as handle. May be
 * done again.
 */
static PyObject *pages_assign(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[3];
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "assign takes first, count, flags, handles, words, now");
        return NULL;
    }
    Py_ssize_t first = PyLong_AsSsize_t(args[0]), count = PyLong_AsSsize_t(args[1]), done = 0;
    unsigned long now = PyLong_AsUnsignedLong(args[5]);
    if (PyErr_Occurred() || !check_rows(self, first, count))
        return NULL;
    for (; got < 3; got++)
        if (PyObject_GetBuffer(args[2 + got], &views[got], PyBUF_CONTIG_RO))
            goto done;
    if (!check_length("flags", views[0].len, count * 4) || !check_length("handles", views[1].len, count * 8) ||
        !check_length("words", views[2].len, count * 8))
        goto done;
    const uint32_t *new_flags = views[0].buf;
    const uint64_t *new_handles = views[1].buf, *words = views[2].buf;
    uint32_t *flags = flags_of(self) + first, *ac_times = ac_times_of(self) + first;
    uint64_t *handles = handles_of(self) + first;
    for (; done < count && new_handles[done] != UNSET; done++) {
        flags[done] = new_flags[done];
        handles[done] = new_flags[done] & SAME ? words[done] : new_handles[done];
        ac_times[done] = (uint32_t)now;
    }
    result = PyLong_FromSsize_t(done);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    return result;
}

/* change(old_flags, flags, count) -> how pages_stored, compr_data_size, same_pages, huge_pages change; new huge pages */
static PyObject *batch_change(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer old, new;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "y*y*n", &old, &new, &count))
        return NULL;
    PyObject *result = NULL;
    long long stored = 0, size = 0, same = 0, huge = 0, huge_since = 0;
    if (count >= 0 && check_length("old_flags", old.len, count * 4) && check_length("flags", new.len, count * 4)) {
        for (Py_ssize_t i = 0; i < 2 * count; i++) {
            int sign = i < count ? -1 : 1;
            uint32_t row = i < count ? ((uint32_t *)old.buf)[i] : ((uint32_t *)new.buf)[i - count];
            stored += row & (SIZE_MASK | SAME | WB) ? sign : 0;
            same += row & SAME ? sign : 0;
            if (row & WB)
                continue;
            size += sign * (long long)(row & SIZE_MASK);
            huge += row & HUGE_PAGE ? sign : 0;
            huge_since += row & HUGE_PAGE && sign > 0;
        }
        result = Py_BuildValue("LLLLL", stored, size, same, huge, huge_since);
    } else if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "count must not be negative");
    }
    PyBuffer_Release(&old);
    PyBuffer_Release(&new);
    return result;
}

/* Reading --------------------------------------------------------------------------------------------------------- */

/* The object of a row in the pool, or NULL when the row does not name one that lies in the arena. */
static const char *object_of(Pages *self, uint64_t handle, uint32_t size)
{
    if (handle >= (uint64_t)self->nr_positions)
        return NULL;
    uint64_t position = ((const uint64_t *)self->positions.buf)[handle];
    if (!position || position > (uint64_t)self->memory.len || size > (uint64_t)self->memory.len - position)
        return NULL;
    return (const char *)self->memory.buf + position;
}

/* The page of a row whose page is in memory, as far as this codec goes; false when the data cannot be had. */
static bool expand_row(Pages *self, Py_ssize_t index, char *page)
{
    uint32_t row = flags_of(self)[index];
    size_t page_size = (size_t)self->page_size;
    if (!row) {
        memset(page, 0, page_size);
        return true;
    }
    uint64_t handle = handles_of(self)[index];
    if (row & SAME) {
        if (!handle) {
            memset(page, 0, page_size);
            return true;
        }
        for (size_t at = 0; at < page_size; at += WORD)
            memcpy(page + at, &handle, WORD);
        return true;
    }
    uint32_t size = row & SIZE_MASK;
    const char *data = object_of(self, handle, size);
    if (!data)
        return false;
    if (row & HUGE_PAGE) {
        if (size != page_size)
            return false;
        memcpy(page, data, page_size);
        return true;
    }
    return self->codec->decompress(data, page, (int)size, self->page_size) == self->page_size;
}

typedef struct {
    Pages *pages;
    Py_ssize_t first, count;
    char *out;
    atomic_long failed;
} ReadJob;

static void read_part(void *argument, int part)
{
    ReadJob *job = argument;
    Pages *self = job->pages;
    Py_ssize_t from = (Py_ssize_t)part * self->part_pages;
    Py_ssize_t to = from + self->part_pages < job->count ? from + self->part_pages : job->count;
    for (Py_ssize_t i = from; i < to; i++) {
        if (flags_of(self)[job->first + i] & ELSEWHERE)
            continue;
        if (!expand_row(self, job->first + i, job->out + i * self->page_size)) {
            atomic_store(&job->failed, (long)i);
            return;
        }
    }
}

static void mark_accessed(Pages *self, Py_ssize_t first, Py_ssize_t count, uint32_t now)
{
    uint32_t *flags = flags_of(self) + first, *ac_times = ac_times_of(self) + first;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!flags[i]) /* a row never written stays untouched, and costs nothing */
            continue;
        if (flags[i] & (IDLE | PP_SLOT))
            flags[i] &= ~(IDLE | PP_SLOT);
        ac_times[i] = now;
    }
}

static Py_ssize_t rows_elsewhere(Pages *self, Py_ssize_t first, Py_ssize_t count)
{
    const uint32_t *flags = flags_of(self) + first;
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        found += (flags[i] & ELSEWHERE) != 0;
    return found;
}

/* False, with the error set, when a page could not be had. Gives up the GIL. */
static bool read_rows(Pages *self, Py_ssize_t first, Py_ssize_t count, char *out)
{
    ReadJob job = {.pages = self, .first = first, .count = count, .out = out, .failed = -1};
    int parts = parts_of(self, count);
    Py_BEGIN_ALLOW_THREADS
    crew_run(&self->crew, self->workers, read_part, &job, parts);
    Py_END_ALLOW_THREADS
    if (job.failed < 0)
        return true;
    PyErr_Format(PyExc_ValueError, "page %zd does not decompress to %d bytes", first + (Py_ssize_t)job.failed,
                 self->page_size);
    return false;
}

/* read(first, count, now) -> the pages as bytes, marked accessed; None when some are elsewhere */
static PyObject *pages_read(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "read takes first, count, now");
        return NULL;
    }
    Py_ssize_t first = PyLong_AsSsize_t(args[0]), count = PyLong_AsSsize_t(args[1]);
    unsigned long now = PyLong_AsUnsignedLong(args[2]);
    if (PyErr_Occurred() || !check_rows(self, first, count))
        return NULL;
    if (rows_elsewhere(self, first, count))
        Py_RETURN_NONE;
    PyObject *result = PyBytes_FromStringAndSize(NULL, count * self->page_size);
    if (!result)
        return NULL;
    if (!read_rows(self, first, count, PyBytes_AsString(result))) {
        Py_DECREF(result);
        return NULL;
    }
    mark_accessed(self, first, count, (uint32_t)now);
    return result;
}

/* read_into(first, target, now) -> rows that are elsewhere: their pages are left as they are, and no row is marked */
static PyObject *pages_read_into(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer target;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "read_into takes first, target, now");
        return NULL;
    }
    Py_ssize_t first = PyLong_AsSsize_t(args[0]);
    unsigned long now = PyLong_AsUnsignedLong(args[2]);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[1], &target, PyBUF_CONTIG))
        return NULL;
    Py_ssize_t count = target.len / self->page_size, elsewhere;
    PyObject *result = NULL;
    if (check_rows(self, first, count) && read_rows(self, first, count, target.buf)) {
        elsewhere = rows_elsewhere(self, first, count);
        if (!elsewhere)
            mark_accessed(self, first, count, (uint32_t)now);
        result = PyLong_FromSsize_t(elsewhere);
    }
    PyBuffer_Release(&target);
    return result;
}

/* read_page(index, now) -> the page as bytes, marked accessed; None when it is elsewhere */
static PyObject *pages_read_page(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "read_page takes index, now");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(args[0]);
    unsigned long now = PyLong_AsUnsignedLong(args[1]);
    if (PyErr_Occurred() || !check_rows(self, index, 1))
        return NULL;
    if (flags_of(self)[index] & ELSEWHERE)
        Py_RETURN_NONE;
    PyObject *page = PyBytes_FromStringAndSize(NULL, self->page_size);
    if (!page)
        return NULL;
    if (!expand_row(self, index, PyBytes_AsString(page))) {
        Py_DECREF(page);
        PyErr_Format(PyExc_ValueError, "page %zd does not decompress to %d bytes", index, self->page_size);
        return NULL;
    }
    mark_accessed(self, index, 1, (uint32_t)now);
    return page;
}

static PyObject *pages_get_workers(Pages *self, void *Py_UNUSED(closure)) { return PyLong_FromLong(self->workers); }

static int pages_set_workers(Pages *self, PyObject *value, void *Py_UNUSED(closure))
{
    long workers = value ? PyLong_AsLong(value) : -1;
    if (workers < 0 || workers > 1024) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "workers is 0..1024");
        return -1;
    }
    self->workers = (int)workers;
    return 0;
}

static PyGetSetDef pages_getset[] = {
    {"workers", (getter)pages_get_workers, (setter)pages_set_workers,
     "Threads besides the caller's that a large request is split over.", NULL},
    {0},
};

static PyMethodDef pages_methods[] = {
    {"compress", (PyCFunction)(void (*)(void))pages_compress, METH_FASTCALL,
     "compress(data, packed, offsets, flags, words): for each page of `data` its row's flags; where there is an object, "
     "its offset in `packed`; of a same-filled page its word. ValueError when a page cannot be compressed."},
    {"compress_page", (PyCFunction)pages_compress_page, METH_O,
     "compress_page(page): the word that fills the page, its compressed bytes, or None when it is to be stored raw."},
    {"prepare", (PyCFunction)(void (*)(void))pages_prepare, METH_FASTCALL,
     "prepare(first, count, old_flags, replaced, handles): what a write of these rows will replace; fills `handles` with "
     "UNSET; returns how many rows hold a backing block."},
    {"assign", (PyCFunction)(void (*)(void))pages_assign, METH_FASTCALL,
     "assign(first, count, flags, handles, words, now): give rows what was stored for them, up to the first handle that "
     "is UNSET; returns how many. May be done again."},
    {"read", (PyCFunction)(void (*)(void))pages_read, METH_FASTCALL,
     "read(first, count, now): the pages as bytes, marked accessed; None when some are written back or recompressed."},
    {"read_into", (PyCFunction)(void (*)(void))pages_read_into, METH_FASTCALL,
     "read_into(first, target, now): fill `target`; returns how many rows are written back or recompressed: those pages "
     "are left as they are and no row is marked accessed then."},
    {"read_page", (PyCFunction)(void (*)(void))pages_read_page, METH_FASTCALL,
     "read_page(index, now): one page as bytes, marked accessed; None when it is written back or recompressed."},
    {"release", (PyCFunction)pages_release, METH_NOARGS, "release(): end the workers, let go of all buffers."},
    {0},
};

static PyType_Slot pages_slots[] = {
    {Py_tp_doc, "Pages(codec, page_size, huge_class_size, flags, handles, ac_times, positions, memory, workers, "
                "part_pages): the rows and the arena of a device. The caller holds the locks of the rows it names."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, pages_init},
    {Py_tp_dealloc, pages_dealloc},
    {Py_tp_methods, pages_methods},
    {Py_tp_getset, pages_getset},
    {0, NULL},
};
static PyType_Spec pages_spec = {
    .name = "zramcore._batch.Pages", .basicsize = sizeof(Pages), .flags = Py_TPFLAGS_DEFAULT, .slots = pages_slots};

/* The bare loops: what the codec alone costs -------------------------------------------------------------------------- */

/* bare_compress(codec, data, page_size, sizes): compress each page over the last one's bytes; sizes is uint32 */
static PyObject *bare_compress(PyObject *Py_UNUSED(module), PyObject *args)
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
static PyObject *bare_decompress(PyObject *Py_UNUSED(module), PyObject *args)
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
                  {"HUGE", HUGE_PAGE},      {"IDLE", IDLE}, {"PRIORITY_MASK", PRIORITY_MASK}};
    bool ready = (codec_type = add_type(made, "Codec", &codec_spec)) && (pages_type = add_type(made, "Pages", &pages_spec));
    for (size_t i = 0; ready && i < sizeof layout / sizeof *layout; i++)
        ready = !PyModule_AddIntConstant(made, layout[i].name, layout[i].value);
    Py_XDECREF((PyObject *)pages_type);
    if (!ready)
        Py_CLEAR(made);
    return made;
}
