/* Writing a single page: compressed, stored and given to its row in one call. The caller holds the lock of its slot. */
#include "_batch.h"

/* What the counters are to be told of a row that changed: a number of bytes, or all there is to know of it. */
static PyObject *change_of_row(uint32_t old, uint64_t old_handle, uint32_t new)
{
    if ((old | new) & (SAME | HUGE_PAGE | WB) || !old)
        return Py_BuildValue("IIK", old, new, (unsigned long long)old_handle);
    return PyLong_FromLong((long)(new & SIZE_MASK) - (long)(old & SIZE_MASK));
}

/* Store `data` (size 0: nothing) in place of what the row holds in the pool, and give it the row; None for ENOMEM. */
static PyObject *replace_row(Pages *self, Py_ssize_t index, const char *data, uint32_t flags, uint64_t handle, uint32_t now,
                             uint64_t limit)
{
    uint32_t old = flags_of(self)[index];
    uint64_t old_handle = handles_of(self)[index];
    uint64_t replaced = old & SIZE_MASK && !(old & WB) ? old_handle : 0;
    int error = self->replace(self->pool, data, flags & SIZE_MASK, limit, replaced, &handle);
    if (error > 0)
        return Py_NewRef(Py_None);
    if (error < 0)
        return PyErr_Format(PyExc_RuntimeError, "the allocator does not know handle %llu of page %zd",
                            (unsigned long long)replaced, index);
    flags_of(self)[index] = flags;
    handles_of(self)[index] = handle;
    ac_times_of(self)[index] = now;
    return change_of_row(old, old_handle, flags);
}

PyObject *pages_write_page(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4) {
        PyErr_SetString(PyExc_TypeError, "write_page takes index, page, now, limit_pages");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(args[0]);
    unsigned long now = PyLong_AsUnsignedLong(args[2]);
    unsigned long long limit = PyLong_AsUnsignedLongLong(args[3]);
    if (PyErr_Occurred() || !check_rows(self, index, 1))
        return NULL;
    if (!PyBytes_CheckExact(args[1]) || PyBytes_Size(args[1]) != self->page_size) {
        PyErr_SetString(PyExc_ValueError, "write_page takes one page, as bytes");
        return NULL;
    }
    const char *page = PyBytes_AsString(args[1]);
    uint64_t word;
    if (same_filled(page, self->page_size, &word))
        return replace_row(self, index, NULL, SAME, word, (uint32_t)now, limit);
    char *scratch = NULL;
    uint32_t flags;
    PyObject *result = NULL;
    if (compress_small(self, page, &scratch, &flags))
        result = replace_row(self, index, flags & HUGE_PAGE ? page : scratch, flags, 0, (uint32_t)now, limit);
    free(scratch);
    return result;
}
