/* Reading: pages out of the arena. The caller holds the locks of their slots, so no object moves meanwhile. */
#include "_batch.h"

/* A row with one of these does not name an object of the primary algorithm: it is left to Python. */
#define ELSEWHERE (WB | PRIORITY_MASK)

/* The object of a row in the pool, or NULL when the row does not name one that lies in the arena. */
const char *object_of(Pages *self, uint64_t handle, uint32_t size)
{
    if (handle >= (uint64_t)self->nr_positions)
        return NULL;
    uint64_t position = ((const uint64_t *)self->positions.buf)[handle];
    if (!position || position > (uint64_t)self->memory.len || size > (uint64_t)self->memory.len - position)
        return NULL;
    return (const char *)self->memory.buf + position;
}

/* The page of a row whose page is in memory, as far as this codec goes; false when the data cannot be had. */
bool expand_row(Pages *self, Py_ssize_t index, char *page)
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
    const Rows *rows;
    char *out;
    atomic_long failed;
} ReadJob;

static void read_part(void *argument, int part)
{
    ReadJob *job = argument;
    Pages *self = job->pages;
    Py_ssize_t count = job->rows->count, from = (Py_ssize_t)part * self->part_pages;
    Py_ssize_t to = from + self->part_pages < count ? from + self->part_pages : count;
    for (Py_ssize_t i = from; i < to; i++) {
        Py_ssize_t index = row_at(job->rows, i);
        if (flags_of(self)[index] & ELSEWHERE)
            continue;
        if (!expand_row(self, index, job->out + i * self->page_size)) {
            atomic_store(&job->failed, (long)index);
            return;
        }
    }
}

static void mark_accessed(Pages *self, const Rows *rows, uint32_t now)
{
    for (Py_ssize_t i = 0; i < rows->count; i++) {
        Py_ssize_t index = row_at(rows, i);
        uint32_t *flags = &flags_of(self)[index];
        if (!*flags) /* a row never written stays untouched, and costs nothing */
            continue;
        if (*flags & (IDLE | PP_SLOT))
            *flags &= ~(IDLE | PP_SLOT);
        ac_times_of(self)[index] = now;
    }
}

static Py_ssize_t rows_elsewhere(Pages *self, const Rows *rows)
{
    Py_ssize_t found = 0;
    for (Py_ssize_t i = 0; i < rows->count; i++)
        found += (flags_of(self)[row_at(rows, i)] & ELSEWHERE) != 0;
    return found;
}

static void cannot_be_had(Pages *self, Py_ssize_t index)
{
    PyErr_Format(PyExc_ValueError, "page %zd does not decompress to %d bytes", index, self->page_size);
}

/* False, with the error set, when a page could not be had. Gives up the GIL. */
static bool read_rows(Pages *self, const Rows *rows, char *out)
{
    ReadJob job = {.pages = self, .rows = rows, .out = out, .failed = -1};
    int parts = parts_of(self, rows->count);
    Py_BEGIN_ALLOW_THREADS
    crew_run(&self->crew, self->workers, read_part, &job, parts);
    Py_END_ALLOW_THREADS
    if (job.failed >= 0)
        cannot_be_had(self, (Py_ssize_t)job.failed);
    return job.failed < 0;
}

/* read(first, count, now) -> the pages as bytes, marked accessed; None when some are elsewhere */
PyObject *pages_read(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "read takes first, count, now");
        return NULL;
    }
    Rows rows = {.first = PyLong_AsSsize_t(args[0]), .count = PyLong_AsSsize_t(args[1])};
    unsigned long now = PyLong_AsUnsignedLong(args[2]);
    if (PyErr_Occurred() || !check_rows(self, rows.first, rows.count))
        return NULL;
    if (rows_elsewhere(self, &rows))
        Py_RETURN_NONE;
    PyObject *result = PyBytes_FromStringAndSize(NULL, rows.count * self->page_size);
    if (!result)
        return NULL;
    if (!read_rows(self, &rows, PyBytes_AsString(result))) {
        Py_DECREF(result);
        return NULL;
    }
    mark_accessed(self, &rows, (uint32_t)now);
    return result;
}

/* read_into(first, target, now) -> rows that are elsewhere: their pages are left as they are, and no row is marked */
PyObject *pages_read_into(Pages *self, PyObject *const *args, Py_ssize_t nargs)
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
    Rows rows = {.first = first, .count = target.len / self->page_size};
    PyObject *result = NULL;
    if (check_rows(self, first, rows.count) && read_rows(self, &rows, target.buf)) {
        Py_ssize_t elsewhere = rows_elsewhere(self, &rows);
        if (!elsewhere)
            mark_accessed(self, &rows, (uint32_t)now);
        result = PyLong_FromSsize_t(elsewhere);
    }
    PyBuffer_Release(&target);
    return result;
}

/* read_page(index, now) -> the page as bytes, marked accessed; None when it is elsewhere */
PyObject *pages_read_page(Pages *self, PyObject *const *args, Py_ssize_t nargs)
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
        cannot_be_had(self, index);
        return NULL;
    }
    mark_accessed(self, &(Rows){.first = index, .count = 1}, (uint32_t)now);
    return page;
}
