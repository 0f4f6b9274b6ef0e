/* The rows of a write: what it replaces, what it gives them, and what the counters say of it. */
#include "_batch.h"

/*
 * prepare(rows, count, old_flags, replaced, handles) -> rows that hold a backing block
 * What a write is going to replace: the rows' flags, and the handle of each object in the pool (0: none). `handles`, for
 * what it will store, is filled with UNSET.
 */
PyObject *pages_prepare(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[3];
    Rows rows;
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "prepare takes rows, count, old_flags, replaced, handles");
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(args[1]), blocks = 0;
    if (PyErr_Occurred() || !take_rows(self, args[0], count, &rows))
        return NULL;
    for (; got < 3; got++)
        if (PyObject_GetBuffer(args[2 + got], &views[got], PyBUF_CONTIG))
            goto done;
    if (!check_length("old_flags", views[0].len, count * 4) || !check_length("replaced", views[1].len, count * 8) ||
        !check_length("handles", views[2].len, count * 8))
        goto done;
    uint32_t *old_flags = views[0].buf;
    uint64_t *replaced = views[1].buf, *new_handles = views[2].buf;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t index = row_at(&rows, i);
        uint32_t row = flags_of(self)[index];
        old_flags[i] = row;
        replaced[i] = row & SIZE_MASK && !(row & WB) ? handles_of(self)[index] : 0;
        new_handles[i] = UNSET;
        blocks += (row & WB) != 0;
    }
    result = PyLong_FromSsize_t(blocks);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    give_rows(&rows);
    return result;
}

/*
 * assign(rows, count, flags, handles, words, now) -> rows done
 * Give rows what was stored for them, up to the first UNSET handle; a same-filled one gets its word as handle. May be
 * done again.
 */
PyObject *pages_assign(Pages *self, PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer views[3];
    Rows rows;
    int got = 0;
    PyObject *result = NULL;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "assign takes rows, count, flags, handles, words, now");
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(args[1]), next = 0;
    unsigned long now = PyLong_AsUnsignedLong(args[5]);
    if (PyErr_Occurred() || !take_rows(self, args[0], count, &rows))
        return NULL;
    for (; got < 3; got++)
        if (PyObject_GetBuffer(args[2 + got], &views[got], PyBUF_CONTIG_RO))
            goto done;
    if (!check_length("flags", views[0].len, count * 4) || !check_length("handles", views[1].len, count * 8) ||
        !check_length("words", views[2].len, count * 8))
        goto done;
    const uint32_t *new_flags = views[0].buf;
    const uint64_t *new_handles = views[1].buf, *words = views[2].buf;
    for (; next < count && new_handles[next] != UNSET; next++) {
        Py_ssize_t index = row_at(&rows, next);
        flags_of(self)[index] = new_flags[next];
        handles_of(self)[index] = new_flags[next] & SAME ? words[next] : new_handles[next];
        ac_times_of(self)[index] = (uint32_t)now;
    }
    result = PyLong_FromSsize_t(next);
done:
    while (got-- > 0)
        PyBuffer_Release(&views[got]);
    give_rows(&rows);
    return result;
}

/* change(old_flags, flags, count) -> how pages_stored, compr_data_size, same_pages, huge_pages change; new huge pages */
PyObject *batch_change(PyObject *Py_UNUSED(module), PyObject *args)
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
