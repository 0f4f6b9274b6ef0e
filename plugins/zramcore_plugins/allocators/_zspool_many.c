/* Calls on many objects. */

#include "_zspool.h"

#include <stdlib.h>
#include <string.h>

static bool is_no_memory(enum zs_error error)
{
    return error == ZS_NO_HANDLE || error == ZS_NO_RUN || error == ZS_OVER_LIMIT;
}

PyObject *pool_views(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    if (!check_count("views", count, 2))
        return NULL;
    PyObject *handles = PySequence_List(args[0]), *sizes = PySequence_List(args[1]), *views = NULL;
    Py_ssize_t length = handles ? PyList_Size(handles) : 0;
    if (handles && sizes && PyList_Size(sizes) != length)
        PyErr_SetString(PyExc_ValueError, "views: as many sizes as handles, please");
    else if (handles && sizes)
        views = PyList_New(length);
    for (Py_ssize_t at = 0; views && at < length; at++) {
        PyObject *view = view_at(self, PyList_GetItem(handles, at), PyList_GetItem(sizes, at));
        if (!view || PyList_SetItem(views, at, view) < 0)
            Py_CLEAR(views);
    }
    Py_XDECREF(sizes);
    Py_XDECREF(handles);
    return views;
}

PyObject *pool_free_many(Pool *self, PyObject *argument)
{
    Handles handles = read_handles(argument);
    if (!handles.values)
        return NULL;
    enum zs_error error = ZS_OK;
    size_t at = 0;
    PyThreadState *saved = lock_pool(self, handles.count < FEW);
    while (at < handles.count && !error)
        error = zs_free(&self->core, handles.values[at++]);
    bool waits = trim_waits(self);
    unlock_pool(self, saved);
    settle(self, waits);
    if (error) {
        drop(&handles.exception);
        raise_bad_handle(handles.values[at - 1]);
    }
    PyMem_Free(handles.values);
    return raise_again(&handles.exception) || error ? NULL : Py_NewRef(Py_None);
}

/* One position of `store`: `data.obj` is NULL where nothing is to be stored. */
typedef struct {
    Py_buffer data;
    uint64_t replaced;
} Position;

static bool read_position(const Pool *self, PyObject *object, PyObject *replaced, Position *position)
{
    position->data.obj = NULL;
    if (!read_handle(replaced, &position->replaced))
        return false;
    if (object == Py_None)
        return true;
    if (PyObject_GetBuffer(object, &position->data, PyBUF_SIMPLE) < 0)
        return false;
    if (position->data.len > 0 && position->data.len <= (Py_ssize_t)self->core.page_size)
        return true;
    raise_bad_size(self, position->data.len);
    PyBuffer_Release(&position->data);
    return false;
}

/* Append a handle to the list; under the mutex, so it must not run Python code. */
static bool report(PyObject *handles, uint64_t handle)
{
    PyObject *number = PyLong_FromUnsignedLongLong(handle);
    bool done = number && PyList_Append(handles, number) == 0;
    Py_XDECREF(number);
    return done;
}

/* What `store` does at one position, under the mutex. */
static enum zs_error store_position(Pool *self, const Position *position, uint64_t limit, PyObject *handles)
{
    uint64_t handle = 0;
    enum zs_error error = ZS_OK;
    if (position->replaced && !zs_position(&self->core, position->replaced))
        return ZS_BAD_HANDLE;
    if (position->data.obj)
        error = zs_place(&self->core, position->data.buf, position->data.len, &limit, &handle);
    if (error)
        return error;
    if (!report(handles, handle)) {
        if (handle)
            zs_free(&self->core, handle);
        return ZS_UNREPORTED;
    }
    if (position->replaced)
        zs_free(&self->core, position->replaced);
    return ZS_OK;
}

/* Store at all positions that could be read. `exception` came from reading the next one. */
static bool store_positions(Pool *self, const Position *positions, size_t count, uint64_t limit, PyObject *handles,
                            Exception *exception)
{
    enum zs_error error = ZS_OK;
    size_t at = 0;
    lock_pool_with_gil(self);
    while (at < count && !error)
        error = store_position(self, &positions[at++], limit, handles);
    bool waits = trim_waits(self);
    unlock_pool(self, NULL);
    settle(self, waits);
    if (!error)
        return !raise_again(exception);
    drop(exception);
    if (error == ZS_BAD_HANDLE)
        raise_bad_handle(positions[at - 1].replaced);
    else if (error == ZS_BAD_SIZE)
        raise_bad_size(self, positions[at - 1].data.len);
    return is_no_memory(error);
}

static PyObject *store_lists(Pool *self, PyObject *objects, PyObject *replaced, uint64_t limit, PyObject *handles)
{
    Py_ssize_t length = PyList_Size(objects), count = 0;
    if (PyList_Size(replaced) != length) {
        PyErr_SetString(PyExc_ValueError, "store: as many replaced handles as objects, please");
        return NULL;
    }
    Position *positions = PyMem_Malloc(length * sizeof *positions + 1);
    if (!positions)
        return PyErr_NoMemory();
    Exception exception = { 0 };
    while (count < length && read_position(self, PyList_GetItem(objects, count), PyList_GetItem(replaced, count),
                                           &positions[count]))
        count++;
    if (count < length)
        exception = catch();
    bool done = store_positions(self, positions, count, limit, handles, &exception);
    while (count--)
        PyBuffer_Release(&positions[count].data);
    PyMem_Free(positions);
    return done ? Py_NewRef(Py_None) : NULL;
}

PyObject *pool_store(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t limit;
    if (!check_count("store", count, 4) || !read_u64(args[2], &limit))
        return NULL;
    if (!PyList_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "store: handles must be a list");
        return NULL;
    }
    PyObject *objects = PySequence_List(args[0]), *replaced = PySequence_List(args[1]);
    PyObject *done = objects && replaced ? store_lists(self, objects, replaced, limit, args[3]) : NULL;
    Py_XDECREF(replaced);
    Py_XDECREF(objects);
    return done;
}

/* The arguments of store_packed, as buffers; released together. */
typedef struct {
    Py_buffer packed, offsets, sizes, replaced, handles;
} Packed;

static void release_packed(Packed *packed)
{
    PyBuffer_Release(&packed->handles);
    PyBuffer_Release(&packed->replaced);
    PyBuffer_Release(&packed->sizes);
    PyBuffer_Release(&packed->offsets);
    PyBuffer_Release(&packed->packed);
}

static bool read_packed(PyObject *const *args, Packed *packed, struct zs_batch *batch)
{
    if (PyObject_GetBuffer(args[0], &packed->packed, PyBUF_SIMPLE) < 0 ||
        !read_array(args[1], "offsets", 4, 0, &packed->offsets) || !read_array(args[2], "sizes", 4, 0, &packed->sizes) ||
        !read_array(args[3], "replaced", 8, 0, &packed->replaced) || !read_u64(args[4], &batch->limit_pages) ||
        !read_array(args[5], "handles", 8, PyBUF_WRITABLE, &packed->handles))
        return false;
    Py_ssize_t count = packed->sizes.len / 4;
    if (packed->offsets.len / 4 != count || packed->replaced.len / 8 != count || packed->handles.len / 8 != count) {
        PyErr_SetString(PyExc_ValueError, "store_packed: offsets, sizes, replaced and handles must be equally long");
        return false;
    }
    batch->packed = packed->packed.buf;
    batch->packed_length = packed->packed.len;
    batch->offsets = packed->offsets.buf;
    batch->sizes = packed->sizes.buf;
    batch->replaced = packed->replaced.buf;
    batch->handles = packed->handles.buf;
    batch->count = count;
    return true;
}

static void raise_packed(const Pool *self, enum zs_error error, const struct zs_batch *batch, size_t at)
{
    uint64_t replaced;
    uint32_t size;
    memcpy(&replaced, (const uint64_t *)batch->replaced + at, sizeof replaced);
    memcpy(&size, (const uint32_t *)batch->sizes + at, sizeof size);
    if (error == ZS_BAD_HANDLE)
        raise_bad_handle(replaced);
    else if (error == ZS_BAD_SIZE)
        raise_bad_size(self, size);
    else
        raise_error("InvalidValue",
                    PyUnicode_FromFormat("zsmalloc: object %zu lies outside the %zu bytes of packed", at,
                                         batch->packed_length),
                    "");
}

static PyObject *store_batch(Pool *self, const struct zs_batch *batch)
{
    size_t done = 0;
    PyThreadState *saved = lock_pool(self, batch->count < FEW);
    enum zs_error error = zs_check_packed(&self->core, batch, &done);
    if (!error)
        error = zs_store_packed(&self->core, batch, &done);
    bool waits = trim_waits(self);
    unlock_pool(self, saved);
    settle(self, waits);
    if (!error || is_no_memory(error))
        return PyLong_FromSize_t(done);
    raise_packed(self, error, batch, done);
    return NULL;
}

PyObject *pool_store_packed(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    Packed packed = { 0 };
    struct zs_batch batch = { 0 };
    PyObject *done = NULL;
    if (check_count("store_packed", count, 6) && read_packed(args, &packed, &batch))
        done = store_batch(self, &batch);
    release_packed(&packed);
    return done;
}

/* What is counted is a copy of the pool, with its own hold on the mappings: a large answer takes long, and nobody is to
 * wait for it. */
static PyObject *count_freed(Pool *self, const Handles *handles)
{
    PyThreadState *saved = lock_pool(self, true);
    struct zs_pool copy = self->core;
    unlock_pool(self, saved);
    uint16_t *going = calloc((size_t)copy.arena.top + 1, sizeof *going);
    if (!going)
        return PyErr_NoMemory();
    uint64_t freed = 0;
    Py_buffer zspages = { 0 }, positions = { 0 };
    if (self->zspages.obj && PyObject_GetBuffer(self->zspages.obj, &zspages, PyBUF_SIMPLE) == 0 &&
        PyObject_GetBuffer(self->positions.obj, &positions, PyBUF_SIMPLE) == 0) {
        Py_BEGIN_ALLOW_THREADS
        freed = zs_pages_freed_by(&copy, handles->values, handles->count, going);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&positions);
    PyBuffer_Release(&zspages);
    free(going);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(freed);
}

PyObject *pool_pages_freed_by(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    if (!check_count("pages_freed_by", count, 2))
        return NULL;
    Handles handles = read_handles(args[0]);
    if (!handles.values)
        return NULL;
    PyObject *freed = raise_again(&handles.exception) ? NULL : count_freed(self, &handles);
    PyMem_Free(handles.values);
    return freed;
}
