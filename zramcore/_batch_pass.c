/* A writeback pass: pages out of the pool to memory for direct I/O, and blocks to the slots that they came from. */
#include "_batch.h"

enum { LOST, TAKEN, LEFT }; /* what became of a slot in `take` */

typedef struct {
    Pages *pages;
    const int64_t *slots;
    Py_ssize_t count;
    char *out;
    uint8_t *found;
    bool as_stored;
} TakeJob;

/* What the backing store is to have of a row: its page, or its object and zeroes; false when Python is to see to it. */
static bool take_row(Pages *self, Py_ssize_t index, char *page, bool as_stored)
{
    uint32_t row = flags_of(self)[index], size = row & SIZE_MASK;
    if (row & (SAME | WB) || !size || size > (uint32_t)self->page_size)
        return false;
    if (!as_stored)
        return !(row & PRIORITY_MASK && !(row & HUGE_PAGE)) && expand_row(self, index, page);
    const char *data = object_of(self, handles_of(self)[index], size);
    if (!data)
        return false;
    memcpy(page, data, size);
    memset(page + size, 0, (size_t)self->page_size - size);
    return true;
}

static void take_part(void *argument, int part)
{
    TakeJob *job = argument;
    Pages *self = job->pages;
    Py_ssize_t from = (Py_ssize_t)part * self->part_pages;
    Py_ssize_t to = from + self->part_pages < job->count ? from + self->part_pages : job->count;
    for (Py_ssize_t i = from; i < to; i++) {
        Py_ssize_t index = (Py_ssize_t)job->slots[i];
        if (!(flags_of(self)[index] & PP_SLOT))
            job->found[i] = LOST;
        else
            job->found[i] = take_row(self, index, job->out + i * self->page_size, job->as_stored) ? TAKEN : LEFT;
    }
}

/* Whether `slots` holds `count` rows that exist; sets the error when not. */
static bool check_slots(Pages *self, const Py_buffer *slots, Py_ssize_t count)
{
    const int64_t *rows = slots->buf;
    if (!check_rows(self, 0, 0) || !check_length("slots", slots->len, count * 8))
        return false;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!check_rows(self, (Py_ssize_t)rows[i], 1))
            return false;
    return true;
}

/* take(slots, target, found, as_stored) -> slots that were taken */
PyObject *pages_take(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[3];
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 4) {
        PyErr_SetString(PyExc_TypeError, "take takes slots, target, found, as_stored");
        return NULL;
    }
    int as_stored = PyObject_IsTrue(args[3]);
    if (as_stored < 0)
        return NULL;
    for (; got < 3; got++)
        if (PyObject_GetBuffer(args[got], &views[got], got ? PyBUF_CONTIG : PyBUF_CONTIG_RO))
            goto done;
    TakeJob job = {.pages = self, .slots = views[0].buf, .count = views[0].len / 8, .out = views[1].buf,
                   .found = views[2].buf, .as_stored = as_stored};
    if (!check_slots(self, &views[0], job.count) ||
        !check_length("target", views[1].len, job.count * self->page_size) ||
        !check_length("found", views[2].len, job.count))
        goto done;
    int parts = parts_of(self, job.count);
    Py_BEGIN_ALLOW_THREADS
    crew_run(&self->crew, self->workers, take_part, &job, parts);
    Py_END_ALLOW_THREADS
    Py_ssize_t taken = 0;
    for (Py_ssize_t i = 0; i < job.count; i++)
        taken += job.found[i] == TAKEN;
    result = PyLong_FromSsize_t(taken);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    return result;
}

/*
 * commit(slots, blocks, written, kept, handles, keep_sizes) -> slots that have their block now, bytes of their objects,
 * huge ones among them
 */
PyObject *pages_commit(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[5];
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "commit takes slots, blocks, written, kept, handles, keep_sizes");
        return NULL;
    }
    int keep_sizes = PyObject_IsTrue(args[5]);
    if (keep_sizes < 0)
        return NULL;
    for (; got < 5; got++)
        if (PyObject_GetBuffer(args[got], &views[got], got < 3 ? PyBUF_CONTIG_RO : PyBUF_CONTIG))
            goto done;
    Py_ssize_t count = views[0].len / 8, committed = 0;
    if (!check_slots(self, &views[0], count) || !check_length("blocks", views[1].len, count * 8) ||
        !check_length("written", views[2].len, count) || !check_length("kept", views[3].len, count) ||
        !check_length("handles", views[4].len, count * 8))
        goto done;
    const int64_t *slots = views[0].buf;
    const uint64_t *blocks = views[1].buf;
    const uint8_t *written = views[2].buf;
    uint8_t *kept = views[3].buf;
    uint64_t *freed = views[4].buf;
    long long bytes = 0, huge = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t *row = &flags_of(self)[slots[i]];
        uint64_t *handle = &handles_of(self)[slots[i]];
        kept[i] = written[i] && *row & PP_SLOT;
        if (!kept[i])
            continue;
        uint32_t size = *row & SIZE_MASK;
        bytes += size;
        huge += (*row & HUGE_PAGE) != 0;
        freed[committed++] = *handle;
        *handle = blocks[i];
        *row = WB | (*row & (HUGE_PAGE | INCOMPRESSIBLE | PRIORITY_MASK)) | (keep_sizes ? size : 0);
    }
    result = Py_BuildValue("nLL", committed, bytes, huge);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    return result;
}
