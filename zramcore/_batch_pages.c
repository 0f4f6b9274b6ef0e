/*
 * Pages: an initialised device as the extension sees it: the columns of its slot table, its allocator's arena, its codec.
 *
 * Buffers of the columns and the arena are held until `release`, which the device calls with all its slots locked.
 */
#include "_batch.h"

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
                            "ac_times", "positions", "memory",          "workers", "part_pages", "replace_one", NULL};
    PyObject *codec, *columns[5];
    unsigned long long replace, pool;
    Py_buffer *views[5] = {&self->flags, &self->handles, &self->ac_times, &self->positions, &self->memory};
    if (self->codec) {
        PyErr_SetString(PyExc_TypeError, "Pages is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!iiOOOOOii(KK)", names, codec_type, &codec, &self->page_size,
                                     &self->huge_class_size, &columns[0], &columns[1], &columns[2], &columns[3],
                                     &columns[4], &self->workers, &self->part_pages, &replace, &pool))
        return -1;
    if (self->page_size < WORD || self->page_size % WORD || (uint32_t)self->page_size > SIZE_MASK ||
        self->huge_class_size < 1 || self->workers < 0 || self->part_pages < 1 || !replace) {
        PyErr_SetString(PyExc_ValueError, "bad page size, huge class size, workers, part or replace_one");
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
    self->replace = (replace_fn)(uintptr_t)replace;
    self->pool = (void *)(uintptr_t)pool;
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
    free_object((PyObject *)self);
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
bool check_rows(Pages *self, Py_ssize_t first, Py_ssize_t count)
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

bool check_length(const char *what, Py_ssize_t length, Py_ssize_t least)
{
    if (length >= least)
        return true;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes, needs %zd", what, length, least);
    return false;
}

/*
 * The rows that `where` and `count` name: `where` is the first one, or a uint64 buffer with the index of each. The error is
 * set when they do not exist. What it takes is given back by give_rows.
 */
bool take_rows(Pages *self, PyObject *where, Py_ssize_t count, Rows *rows)
{
    *rows = (Rows){.count = count};
    if (PyLong_Check(where)) {
        rows->first = PyLong_AsSsize_t(where);
        return !PyErr_Occurred() && check_rows(self, rows->first, count);
    }
    if (!check_rows(self, 0, count) || PyObject_GetBuffer(where, &rows->view, PyBUF_CONTIG_RO))
        return false;
    rows->indexes = rows->view.buf;
    bool good = check_length("rows", rows->view.len, count * 8);
    for (Py_ssize_t i = 0; good && i < count; i++) {
        good = rows->indexes[i] < (uint64_t)self->nr_slots;
        if (!good)
            PyErr_Format(PyExc_IndexError, "no row %llu of %zd", (unsigned long long)rows->indexes[i], self->nr_slots);
    }
    if (!good)
        give_rows(rows);
    return good;
}

void give_rows(Rows *rows)
{
    if (rows->indexes)
        PyBuffer_Release(&rows->view);
    rows->indexes = NULL;
}

int parts_of(Pages *self, Py_ssize_t count)
{
    return (int)((count + self->part_pages - 1) / self->part_pages);
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
     "compress(data, packed, offsets, flags, words): for each page of `data`, a buffer or a list of pages, its row's flags; "
     "where there is an object, its offset in `packed`; of a same-filled page its word. ValueError when a page cannot be "
     "compressed."},
    {"compress_page", (PyCFunction)pages_compress_page, METH_O,
     "compress_page(page): the word that fills the page, its compressed bytes, or None when it is to be stored raw."},
    {"prepare", (PyCFunction)(void (*)(void))pages_prepare, METH_FASTCALL,
     "prepare(rows, count, old_flags, replaced, handles): what a write of these rows (the first one, or a uint64 buffer "
     "of indexes) will replace; fills `handles` with "
     "UNSET; returns how many rows hold a backing block."},
    {"assign", (PyCFunction)(void (*)(void))pages_assign, METH_FASTCALL,
     "assign(rows, count, flags, handles, words, now): give rows what was stored for them, up to the first handle that "
     "is UNSET; returns how many. May be done again."},
    {"read", (PyCFunction)(void (*)(void))pages_read, METH_FASTCALL,
     "read(first, count, now): the pages as bytes, marked accessed; None when some are written back or recompressed."},
    {"read_into", (PyCFunction)(void (*)(void))pages_read_into, METH_FASTCALL,
     "read_into(first, target, now): fill `target`; returns how many rows are written back or recompressed: those pages "
     "are left as they are and no row is marked accessed then."},
    {"read_page", (PyCFunction)(void (*)(void))pages_read_page, METH_FASTCALL,
     "read_page(index, now): one page as bytes, marked accessed; None when it is written back or recompressed."},
    {"take", (PyCFunction)(void (*)(void))pages_take, METH_FASTCALL,
     "take(slots, target, found, as_stored): what the backing store is to have of each slot, in its place in `target`; "
     "`found` says 0 for a slot that has lost its token, 1 for one that was taken, 2 for one that is left to Python; "
     "returns how many were taken. as_stored: objects as they are, zeroes behind them."},
    {"commit", (PyCFunction)(void (*)(void))pages_commit, METH_FASTCALL,
     "commit(slots, blocks, written, kept, handles, keep_sizes): give slots that are written and have their token their "
     "blocks; `kept` says which, `handles` begins with what to free; returns how many, bytes of their objects, huge ones."},
    {"write_page", (PyCFunction)(void (*)(void))pages_write_page, METH_FASTCALL,
     "write_page(index, page, now, limit_pages): give a row a page; returns the change of compr_data_size when nothing else "
     "is to be counted, else (flags before, flags now, handle before); None for ENOMEM."},
    {"release", (PyCFunction)pages_release, METH_NOARGS, "release(): end the workers, let go of all buffers."},
    {0},
};

static PyType_Slot pages_slots[] = {
    {Py_tp_doc, "Pages(codec, page_size, huge_class_size, flags, handles, ac_times, positions, memory, workers, "
                "part_pages, replace_one): the rows and the arena of a device. The caller holds the locks of the rows it names."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, pages_init},
    {Py_tp_dealloc, pages_dealloc},
    {Py_tp_methods, pages_methods},
    {Py_tp_getset, pages_getset},
    {0, NULL},
};
PyType_Spec pages_spec = {
    .name = "zramcore._batch.Pages", .basicsize = sizeof(Pages), .flags = Py_TPFLAGS_DEFAULT, .slots = pages_slots};
