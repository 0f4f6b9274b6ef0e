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

#include "_zspool.h"

#include <string.h>

PyThreadState *lock_pool(Pool *self, bool keep_gil)
{
    if (keep_gil && pthread_mutex_trylock(&self->mutex) == 0)
        return NULL;
    PyThreadState *saved = PyEval_SaveThread();
    pthread_mutex_lock(&self->mutex);
    return saved;
}

void unlock_pool(Pool *self, PyThreadState *saved)
{
    pthread_mutex_unlock(&self->mutex);
    if (saved)
        PyEval_RestoreThread(saved);
}

void lock_pool_with_gil(Pool *self)
{
    while (pthread_mutex_trylock(&self->mutex) != 0) {
        PyThreadState *saved = PyEval_SaveThread();
        pthread_mutex_lock(&self->mutex);
        pthread_mutex_unlock(&self->mutex);
        PyEval_RestoreThread(saved);
    }
}

/* Give memory back when enough of it waits: `waits` was seen under the mutex. */
void settle(Pool *self, bool waits)
{
    if (!waits)
        return;
    PyThreadState *saved = lock_pool(self, false);
    if (self->core.arena.dirty_pages > TRIM_PAGES)
        arena_trim(&self->core.arena);
    unlock_pool(self, saved);
}

bool trim_waits(const Pool *self)
{
    return self->core.arena.dirty_pages > TRIM_PAGES;
}

/* One object ------------------------------------------------------------------------------------------------------ */

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

PyObject *view_at(Pool *self, PyObject *handle_number, PyObject *size_number)
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

/* `Allocator.replace_one`: called from C, with the GIL. */
static int replace_one(void *pool, const char *data, uint32_t size, uint64_t limit, uint64_t replaced, uint64_t *handle)
{
    Pool *self = pool;
    enum zs_error error = ZS_OK;
    PyThreadState *saved = lock_pool(self, true);
    if (replaced && !zs_position(&self->core, replaced))
        error = ZS_BAD_HANDLE;
    if (!error && size)
        error = zs_place(&self->core, data, size, &limit, handle);
    if (!error && replaced)
        error = zs_free(&self->core, replaced);
    bool waits = trim_waits(self);
    unlock_pool(self, saved);
    settle(self, waits);
    return error == ZS_OK ? 0 : error == ZS_BAD_HANDLE || error == ZS_BAD_SIZE ? -1 : 1;
}

static PyObject *get_replace_one(Pool *self, void *Py_UNUSED(closure))
{
    return Py_BuildValue("KK", (unsigned long long)(uintptr_t)replace_one, (unsigned long long)(uintptr_t)self);
}

/* The pool as a whole --------------------------------------------------------------------------------------------- */

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
    { "replace_one", (getter)get_replace_one, NULL, "See Allocator.replace_one.", NULL },
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
