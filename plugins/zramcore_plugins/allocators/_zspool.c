/* The compiled core of the zsmalloc pool: zspool.h for Python. Limited API of 3.11: one build serves every later Python.
 *
 * Locks. A pool has a mutex, and every step on its state runs under it. There are two orders that would deadlock with
 * the GIL, so these hold everywhere:
 *
 *   - nobody waits for the mutex while holding the GIL: with the GIL it is only tried (lock_pool lets the GIL go first);
 *   - nobody waits for the GIL while holding the mutex: unlock_pool unlocks before it takes the GIL back;
 *   - no Python code runs under the mutex: arguments are read before it, results and errors made after it. `store`
 *     alone makes ints and appends them to a list meanwhile, which runs none, and keeps the GIL all along.
 *
 * So a signal handler never sees a call half done. Long work (big copies, compaction, madvise) lets the GIL go.
 * `view` and `views` take no mutex: a handle's position does not change while its owner may read it.
 *
 * The mappings are Python's mmap objects, exported to the pool until `close`; whoever holds a view keeps one mapped.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "zspool.h"

#define FEW 16      /* a call on fewer objects is over before letting the GIL go would pay */

typedef struct {
    PyObject_HEAD
    pthread_mutex_t mutex;
    struct zs_pool core;
    bool open, compacting;
    Py_buffer memory, zspages, positions;
    PyObject *memory_view;
} Pool;

static PyThreadState *lock_pool(Pool *self, bool keep_gil)
{
    if (keep_gil && pthread_mutex_trylock(&self->mutex) == 0)
        return NULL;
    PyThreadState *saved = PyEval_SaveThread();
    pthread_mutex_lock(&self->mutex);
    return saved;
}

static void unlock_pool(Pool *self, PyThreadState *saved)
{
    pthread_mutex_unlock(&self->mutex);
    if (saved)
        PyEval_RestoreThread(saved);
}

static void lock_pool_with_gil(Pool *self)
{
    while (pthread_mutex_trylock(&self->mutex) != 0) {
        PyThreadState *saved = PyEval_SaveThread();
        pthread_mutex_lock(&self->mutex);
        pthread_mutex_unlock(&self->mutex);
        PyEval_RestoreThread(saved);
    }
}

/* Errors ---------------------------------------------------------------------------------------------------------- */

/* Raise a class of zramcore.errors; takes over `reason`. */
static void raise_error(const char *kind, PyObject *reason, const char *hint)
{
    PyObject *module = PyImport_ImportModule("zramcore.errors");
    PyObject *type = module ? PyObject_GetAttrString(module, kind) : NULL;
    PyObject *arguments = reason ? PyTuple_Pack(1, reason) : NULL;
    PyObject *fields = Py_BuildValue("{s:s}", "hint", hint);
    PyObject *error = type && arguments && fields ? PyObject_Call(type, arguments, fields) : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(fields);
    Py_XDECREF(arguments);
    Py_XDECREF(type);
    Py_XDECREF(module);
    Py_XDECREF(reason);
}

static void raise_not_allocated(PyObject *handle)
{
    raise_error("InvalidValue", PyUnicode_FromFormat("zsmalloc: handle %S is not allocated", handle),
                "it was freed, or never handed out");
}

static void raise_bad_handle(uint64_t handle)
{
    PyObject *number = PyLong_FromUnsignedLongLong(handle);
    if (number)
        raise_not_allocated(number);
    Py_XDECREF(number);
}

static void raise_bad_size(const Pool *self, Py_ssize_t size)
{
    if (size < 1)
        raise_error("InvalidValue", PyUnicode_FromFormat("zsmalloc: an object of %zd bytes", size), "");
    else
        raise_error("NoSpace",
                    PyUnicode_FromFormat("zsmalloc: an object of %zd bytes, more than a page of %u", size,
                                         (unsigned)self->core.page_size),
                    "");
}

static void raise_no_memory(const Pool *self, enum zs_error error)
{
    PyObject *reason;
    if (error == ZS_NO_HANDLE && self->core.nr_handles)
        reason = PyUnicode_FromFormat("all %llu handles are in use", (unsigned long long)self->core.nr_handles - 1);
    else
        reason = PyUnicode_FromString("the pool's address space is used up");
    raise_error("NoMemory", reason, "");
}

static bool is_no_memory(enum zs_error error)
{
    return error == ZS_NO_HANDLE || error == ZS_NO_RUN || error == ZS_OVER_LIMIT;
}

/* Arguments ------------------------------------------------------------------------------------------------------- */

static bool read_u64(PyObject *object, uint64_t *value)
{
    PyObject *number = PyNumber_Index(object);
    if (!number)
        return false;
    *value = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    return *value != (uint64_t)-1 || !PyErr_Occurred();
}

/* A handle; an int that cannot be one is as any other that is not allocated. */
static bool read_handle(PyObject *object, uint64_t *handle)
{
    if (read_u64(object, handle))
        return true;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        raise_not_allocated(object);
    }
    return false;
}

static bool check_count(const char *name, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments (%zd given)", name, wanted, given);
    return false;
}

/* Whether a buffer holds unsigned integers of `width` bytes in the machine's order. */
static bool holds_unsigned(const Py_buffer *view, Py_ssize_t width)
{
    const char *format = view->format ? view->format : "B";
    if (*format == '@' || *format == '=' || *format == (PY_LITTLE_ENDIAN ? '<' : '>'))
        format++;
    return view->itemsize == width && view->ndim <= 1 && *format && strchr("ILQN", *format) && !format[1];
}

static bool read_array(PyObject *object, const char *name, Py_ssize_t width, int flags, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | flags) < 0)
        return false;
    if (holds_unsigned(view, width))
        return true;
    PyErr_Format(PyExc_TypeError, "%s must be an array of uint%zd", name, 8 * width);
    PyBuffer_Release(view);
    return false;
}

/* An exception that waits until what came before it is done. */
typedef struct {
    PyObject *type, *value, *trace;
} Exception;

static Exception catch(void)
{
    Exception exception;
    PyErr_Fetch(&exception.type, &exception.value, &exception.trace);
    return exception;
}

static void drop(Exception *exception)
{
    Py_CLEAR(exception->type);
    Py_CLEAR(exception->value);
    Py_CLEAR(exception->trace);
}

/* Whether there was one. */
static bool raise_again(Exception *exception)
{
    if (!exception->type)
        return false;
    PyErr_Restore(exception->type, exception->value, exception->trace);
    return true;
}

/* The handles in a sequence of ints or an array of uint64. When one cannot be read, those before are there and the
 * exception is kept. `values` must be freed; NULL, with an exception raised, when there are none. */
typedef struct {
    uint64_t *values;
    size_t count;
    Exception exception;
} Handles;

static bool handles_of_array(PyObject *object, Handles *handles)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
        PyErr_Clear();
        return false;
    }
    bool fits = holds_unsigned(&view, sizeof(uint64_t));
    if (fits && (handles->values = PyMem_Malloc(view.len + 1))) {
        memcpy(handles->values, view.buf, view.len);
        handles->count = view.len / sizeof(uint64_t);
    } else if (fits) {
        PyErr_NoMemory();
    }
    PyBuffer_Release(&view);
    return fits;
}

static Handles read_handles(PyObject *object)
{
    Handles handles = { 0 };
    if (PyObject_CheckBuffer(object) && handles_of_array(object, &handles))
        return handles;
    PyObject *list = PySequence_List(object);
    Py_ssize_t length = list ? PyList_Size(list) : 0;
    if (list && !(handles.values = PyMem_Malloc(length * sizeof(uint64_t) + 1)))
        PyErr_NoMemory();
    if (handles.values) {
        while ((Py_ssize_t)handles.count < length) {
            if (!read_handle(PyList_GetItem(list, handles.count), &handles.values[handles.count])) {
                handles.exception = catch();
                break;
            }
            handles.count++;
        }
    }
    Py_XDECREF(list);
    return handles;
}

/* Set-up and end -------------------------------------------------------------------------------------------------- */

static PyObject *pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Pool *self = (Pool *)allocate(type, 0);
    if (self && pthread_mutex_init(&self->mutex, NULL) != 0) {
        PyErr_NoMemory();
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static bool bad_class(const struct size_class *class, const struct size_class *below, uint32_t page_size, bool last)
{
    uint64_t span = (uint64_t)class->pages * page_size;
    return class->size < MIN_CLASS_SIZE || class->size % 8 || class->size > page_size || class->objects < 1 ||
           class->pages < 1 || class->pages > CHAIN_SIZE || (uint64_t)class->objects * class->size > span ||
           (below && class->size <= below->size) || class->huge != last || (last && class->size != page_size);
}

/* Rows (index, size, pages, objects), smallest first; malloced. */
static struct size_class *read_classes(PyObject *rows, uint32_t page_size, uint32_t *count)
{
    Py_ssize_t length = PySequence_Size(rows);
    if (length < 1 || length > MAX_CLASSES) {
        if (length >= 0)
            PyErr_SetString(PyExc_ValueError, "too few or too many classes");
        return NULL;
    }
    struct size_class *classes = calloc(length, sizeof *classes);
    if (!classes)
        return (struct size_class *)PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < length; at++) {
        PyObject *row = PySequence_GetItem(rows, at);
        unsigned short index, pages, objects;
        unsigned size;
        bool read = row && PyArg_ParseTuple(row, "HIHH", &index, &size, &pages, &objects);
        Py_XDECREF(row);
        if (read) {
            bool huge = pages == 1 && objects == 1;
            classes[at] = (struct size_class){
                .index = index, .size = size, .pages = pages, .objects = objects, .huge = huge
            };
            if (!bad_class(&classes[at], at ? &classes[at - 1] : NULL, page_size, at == length - 1))
                continue;
            PyErr_Format(PyExc_ValueError, "a pool cannot have class %zd as it is", at);
        }
        free(classes);
        return NULL;
    }
    *count = (uint32_t)length;
    return classes;
}

static void release_mappings(Pool *self)
{
    Py_CLEAR(self->memory_view);
    for (Py_buffer **each = (Py_buffer *[]){ &self->memory, &self->zspages, &self->positions, NULL }; *each; each++) {
        if ((*each)->obj)
            PyBuffer_Release(*each);
    }
}

static bool export_mappings(Pool *self, PyObject *memory, PyObject *zspages, PyObject *positions)
{
    int flags = PyBUF_WRITABLE;
    return PyObject_GetBuffer(memory, &self->memory, flags) == 0 &&
           PyObject_GetBuffer(zspages, &self->zspages, flags) == 0 &&
           PyObject_GetBuffer(positions, &self->positions, flags) == 0 &&
           (self->memory_view = PyObject_CallMethod(memory, "toreadonly", NULL));
}

/* Whether the mappings are what a pool of this page size needs; ValueError otherwise. */
static bool check_mappings(const Pool *self, unsigned page_size)
{
    uint64_t pages = self->memory.len / page_size;
    bool aligned = !((uintptr_t)self->zspages.buf % _Alignof(struct zspage)) && !((uintptr_t)self->positions.buf % 8);
    if (aligned && pages > CHAIN_SIZE && pages <= UINT32_MAX && self->positions.len >= 16 &&
        (uint64_t)self->zspages.len / sizeof(struct zspage) >= pages)
        return true;
    PyErr_SetString(PyExc_ValueError, "these mappings are none for a pool");
    return false;
}

static int pool_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Pool *self = (Pool *)object;
    static char *names[] = { "page_size", "classes", "memory", "zspages", "positions", NULL };
    PyObject *rows, *memory, *zspages, *positions;
    unsigned page_size;
    uint32_t count = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IOOOO", names, &page_size, &rows, &memory, &zspages, &positions))
        return -1;
    if (self->memory.obj || page_size < 4096 || page_size > 65536 || page_size & (page_size - 1)) {
        PyErr_SetString(PyExc_ValueError, "a pool is made once, with pages of 4096 to 65536 bytes");
        return -1;
    }
    struct size_class *classes = read_classes(rows, page_size, &count);
    if (!classes)
        return -1;
    if (!export_mappings(self, memory, zspages, positions) || !check_mappings(self, page_size)) {
        free(classes);
        release_mappings(self);
        return -1;
    }
    arena_open(&self->core.arena, self->memory.buf, self->zspages.buf, (uint32_t)(self->memory.len / page_size),
               (unsigned)__builtin_ctz(page_size));
    self->core.positions = self->positions.buf;
    self->core.nr_handles = self->positions.len / sizeof(uint64_t);
    if (zs_open(&self->core, page_size, classes, count))
        return 0;
    zs_destroy(&self->core);
    self->core = (struct zs_pool){ 0 };
    release_mappings(self);
    PyErr_NoMemory();
    return -1;
}

static PyObject *pool_close(Pool *self, PyObject *Py_UNUSED(ignored))
{
    PyThreadState *saved = lock_pool(self, false);
    zs_close(&self->core);
    unlock_pool(self, saved);
    release_mappings(self);
    Py_RETURN_NONE;
}

static void pool_dealloc(Pool *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    release_mappings(self);
    zs_destroy(&self->core);
    pthread_mutex_destroy(&self->mutex);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* One object ------------------------------------------------------------------------------------------------------ */

/* Give memory back when enough of it waits: `waits` was seen under the mutex. */
static void settle(Pool *self, bool waits)
{
    if (!waits)
        return;
    PyThreadState *saved = lock_pool(self, false);
    if (self->core.arena.dirty_pages > TRIM_PAGES)
        arena_trim(&self->core.arena);
    unlock_pool(self, saved);
}

static bool trim_waits(const Pool *self)
{
    return self->core.arena.dirty_pages > TRIM_PAGES;
}

static PyObject *pool_alloc(Pool *self, PyObject *argument)
{
    Py_ssize_t size = PyNumber_AsSsize_t(argument, NULL);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    uint64_t handle = 0;
    PyThreadState *saved = lock_pool(self, true);
    enum zs_error error = size < 1 ? ZS_BAD_SIZE : zs_place(&self->core, NULL, size, NULL, &handle);
    unlock_pool(self, saved);
    if (!error)
        return PyLong_FromUnsignedLongLong(handle);
    if (error == ZS_BAD_SIZE)
        raise_bad_size(self, size);
    else
        raise_no_memory(self, error);
    return NULL;
}

static PyObject *pool_write(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t handle;
    Py_buffer data;
    if (!check_count("write", count, 2) || !read_handle(args[0], &handle) ||
        PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t room = 0;
    PyThreadState *saved = lock_pool(self, true);
    enum zs_error error = zs_write(&self->core, handle, data.buf, data.len, &room);
    unlock_pool(self, saved);
    if (error == ZS_BAD_HANDLE)
        raise_not_allocated(args[0]);
    else if (error)
        raise_error("InvalidValue",
                    PyUnicode_FromFormat("zsmalloc: %zd bytes do not fit the %zu of handle %S", data.len, room, args[0]),
                    "");
    PyBuffer_Release(&data);
    return error ? NULL : Py_NewRef(Py_None);
}

static PyObject *view_at(Pool *self, PyObject *handle_number, PyObject *size_number)
{
    uint64_t handle;
    Py_ssize_t size = PyNumber_AsSsize_t(size_number, NULL);
    if ((size == -1 && PyErr_Occurred()) || !read_handle(handle_number, &handle))
        return NULL;
    uint64_t position = zs_position(&self->core, handle);
    if (!position) {
        raise_not_allocated(handle_number);
        return NULL;
    }
    Py_ssize_t start = (Py_ssize_t)position, room = self->memory.len - start;
    Py_ssize_t length = size < 0 ? 0 : size < room ? size : room;
    PyObject *first = PyLong_FromSsize_t(start), *end = PyLong_FromSsize_t(start + length);
    PyObject *slice = first && end ? PySlice_New(first, end, NULL) : NULL;
    PyObject *view = slice ? PyObject_GetItem(self->memory_view, slice) : NULL;
    Py_XDECREF(slice);
    Py_XDECREF(end);
    Py_XDECREF(first);
    return view;
}

static PyObject *pool_view(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    return check_count("view", count, 2) ? view_at(self, args[0], args[1]) : NULL;
}

static PyObject *pool_free(Pool *self, PyObject *argument)
{
    uint64_t handle;
    if (!read_handle(argument, &handle))
        return NULL;
    PyThreadState *saved = lock_pool(self, true);
    enum zs_error error = zs_free(&self->core, handle);
    bool waits = trim_waits(self);
    unlock_pool(self, saved);
    settle(self, waits);
    if (error) {
        raise_not_allocated(argument);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *pool_store_one(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data;
    uint64_t limit, handle = 0;
    if (!check_count("store_one", count, 2) || !read_u64(args[1], &limit) ||
        PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    PyThreadState *saved = lock_pool(self, true);
    enum zs_error error = zs_place(&self->core, data.buf, data.len, &limit, &handle);
    unlock_pool(self, saved);
    if (error == ZS_BAD_SIZE)
        raise_bad_size(self, data.len);
    PyBuffer_Release(&data);
    return error == ZS_BAD_SIZE ? NULL : PyLong_FromUnsignedLongLong(handle);
}

/* Many objects ---------------------------------------------------------------------------------------------------- */

static PyObject *pool_views(Pool *self, PyObject *const *args, Py_ssize_t count)
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

static PyObject *pool_free_many(Pool *self, PyObject *argument)
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
    while (count--) {
        if (positions[count].data.obj)
            PyBuffer_Release(&positions[count].data);
    }
    PyMem_Free(positions);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *pool_store(Pool *self, PyObject *const *args, Py_ssize_t count)
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
    Py_buffer *views[] = { &packed->packed, &packed->offsets, &packed->sizes, &packed->replaced, &packed->handles };
    for (size_t each = 0; each < sizeof views / sizeof *views; each++) {
        if (views[each]->obj)
            PyBuffer_Release(views[each]);
    }
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

static PyObject *pool_store_packed(Pool *self, PyObject *const *args, Py_ssize_t count)
{
    Packed packed = { 0 };
    struct zs_batch batch = { 0 };
    PyObject *done = NULL;
    if (check_count("store_packed", count, 6) && read_packed(args, &packed, &batch))
        done = store_batch(self, &batch);
    release_packed(&packed);
    return done;
}

/* The pool as a whole --------------------------------------------------------------------------------------------- */

/* What is counted is a copy of the pool, with its own hold on the mappings: it takes no mutex, for a large answer takes
 * long. */
static PyObject *count_freed(Pool *self, const Handles *handles)
{
    Py_buffer zspages, positions;
    struct zs_pool copy = self->core;
    uint16_t *going = calloc(copy.arena.top + 1, sizeof *going);
    if (!going)
        return PyErr_NoMemory();
    uint64_t freed = 0;
    if (copy.positions && PyObject_GetBuffer(self->zspages.obj, &zspages, PyBUF_SIMPLE) == 0) {
        if (PyObject_GetBuffer(self->positions.obj, &positions, PyBUF_SIMPLE) == 0) {
            Py_BEGIN_ALLOW_THREADS
            freed = zs_pages_freed_by(&copy, handles->values, handles->count, going);
            Py_END_ALLOW_THREADS
            PyBuffer_Release(&positions);
        }
        PyBuffer_Release(&zspages);
    }
    free(going);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(freed);
}

static PyObject *pool_pages_freed_by(Pool *self, PyObject *const *args, Py_ssize_t count)
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

static PyObject *pool_compact(Pool *self, PyObject *Py_UNUSED(ignored))
{
    PyThreadState *saved = lock_pool(self, false);
    struct zs_pool *core = &self->core;
    bool mine = !self->compacting;
    uint64_t start = core->pages_compacted;
    if (mine) {
        self->compacting = true;
        for (uint32_t number = core->nr_classes; number-- > 0 && number < core->nr_classes;) {
            zs_compact_class(core, &core->classes[number]);
            pthread_mutex_unlock(&self->mutex);
            pthread_mutex_lock(&self->mutex);
        }
        zs_trim(core);
        self->compacting = false;
    }
    uint64_t freed = core->pages_compacted - start;
    unlock_pool(self, saved);
    return PyLong_FromUnsignedLongLong(mine ? freed : 0);
}

static PyObject *pool_trim(Pool *self, PyObject *Py_UNUSED(ignored))
{
    PyThreadState *saved = lock_pool(self, false);
    zs_trim(&self->core);
    unlock_pool(self, saved);
    Py_RETURN_NONE;
}

static PyObject *class_row(const struct size_class *class)
{
    PyObject *groups = PyTuple_New(FULL_GROUP);
    for (int group = 1; groups && group <= FULL_GROUP; group++) {
        PyObject *number = PyLong_FromUnsignedLongLong(class->counts[group]);
        if (!number || PyTuple_SetItem(groups, group - 1, number) < 0)
            Py_CLEAR(groups);
    }
    if (!groups)
        return NULL;
    return Py_BuildValue("IINKKKIK", (unsigned)class->index, (unsigned)class->size, groups,
                         (unsigned long long)(class->zspages * class->objects), (unsigned long long)class->inuse,
                         (unsigned long long)(class->zspages * class->pages), (unsigned)class->pages,
                         (unsigned long long)zs_freeable(class));
}

static PyObject *pool_class_rows(Pool *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t count = self->core.nr_classes;
    struct size_class *classes = PyMem_Malloc(count * sizeof *classes + 1);
    if (!classes)
        return PyErr_NoMemory();
    PyThreadState *saved = lock_pool(self, true);
    count = count < self->core.nr_classes ? count : self->core.nr_classes;
    if (count)
        memcpy(classes, self->core.classes, count * sizeof *classes);
    unlock_pool(self, saved);
    PyObject *rows = PyList_New(count);
    for (uint32_t number = 0; rows && number < count; number++) {
        PyObject *row = class_row(&classes[number]);
        if (!row || PyList_SetItem(rows, number, row) < 0)
            Py_CLEAR(rows);
    }
    PyMem_Free(classes);
    return rows;
}

/* Counters are single words: they are read without the mutex. */
static PyObject *get_counter(PyObject *self, void *offset)
{
    const uint64_t *counter = (const uint64_t *)((const char *)self + (uintptr_t)offset);
    return PyLong_FromUnsignedLongLong(__atomic_load_n(counter, __ATOMIC_RELAXED));
}

static int set_peak_pages(Pool *self, PyObject *value, void *Py_UNUSED(ignored))
{
    uint64_t pages;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "peak_pages cannot be deleted");
        return -1;
    }
    if (!read_u64(value, &pages))
        return -1;
    PyThreadState *saved = lock_pool(self, true);
    self->core.peak_pages = pages;
    unlock_pool(self, saved);
    return 0;
}

#define COUNTER(field) (void *)offsetof(Pool, core.field)

static PyGetSetDef pool_counters[] = {
    { "pages_used", get_counter, NULL, "Pages the pool holds now.", COUNTER(pages_used) },
    { "peak_pages", get_counter, (setter)set_peak_pages, "The most pages that store saw.", COUNTER(peak_pages) },
    { "pages_compacted", get_counter, NULL, "Pages that compact freed.", COUNTER(pages_compacted) },
    { 0 },
};

#define FAST(name) (PyCFunction)(void (*)(void))pool_##name, METH_FASTCALL

static PyMethodDef pool_methods[] = {
    { "alloc", (PyCFunction)pool_alloc, METH_O, "alloc(size) -> handle" },
    { "write", FAST(write), "write(handle, data)" },
    { "view", FAST(view), "view(handle, size) -> memoryview" },
    { "free", (PyCFunction)pool_free, METH_O, "free(handle)" },
    { "store_one", FAST(store_one), "store_one(data, limit_pages) -> handle" },
    { "views", FAST(views), "views(handles, sizes) -> list of memoryviews" },
    { "free_many", (PyCFunction)pool_free_many, METH_O, "free_many(handles)" },
    { "store", FAST(store), "store(objects, replaced, limit_pages, handles)" },
    { "store_packed", FAST(store_packed), "store_packed(packed, offsets, sizes, replaced, limit_pages, handles) -> done" },
    { "pages_freed_by", FAST(pages_freed_by), "pages_freed_by(handles, sizes) -> pages" },
    { "compact", (PyCFunction)pool_compact, METH_NOARGS, "compact() -> pages" },
    { "trim", (PyCFunction)pool_trim, METH_NOARGS, "trim()" },
    { "class_rows", (PyCFunction)pool_class_rows, METH_NOARGS, "class_rows() -> list of tuples" },
    { "close", (PyCFunction)pool_close, METH_NOARGS, "close()" },
    { 0 },
};

static PyType_Slot pool_slots[] = {
    { Py_tp_doc, "Pool(page_size, classes, memory, zspages, positions): a zsmalloc pool in these mappings." },
    { Py_tp_new, pool_new },
    { Py_tp_init, pool_init },
    { Py_tp_dealloc, pool_dealloc },
    { Py_tp_methods, pool_methods },
    { Py_tp_getset, pool_counters },
    { 0, NULL },
};

static PyType_Spec pool_spec = {
    .name = "zramcore_plugins.allocators._zspool.Pool",
    .basicsize = sizeof(Pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = pool_slots,
};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&pool_spec);
    int failed = !type || PyModule_AddObjectRef(module, "Pool", type) < 0 ||
                 PyModule_AddIntConstant(module, "ZSPAGE_SIZE", sizeof(struct zspage)) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {
    { Py_mod_exec, module_exec },
    { 0, NULL },
};

static struct PyModuleDef zspool_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_zspool",
    .m_doc = "The compiled core of the zsmalloc pool.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__zspool(void)
{
    return PyModuleDef_Init(&zspool_module);
}
