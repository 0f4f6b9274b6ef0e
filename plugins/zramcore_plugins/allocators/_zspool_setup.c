/* How a pool is made in the mappings it is given, and how it ends. */

#include "_zspool.h"

#include <stdlib.h>

PyObject *pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
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

/* Whether a class is one, comes after the one below it, and is huge where it is the last. */
static bool is_class(const struct size_class *class, const struct size_class *below, uint32_t page_size, bool last)
{
    uint64_t span = (uint64_t)class->pages * page_size;
    return class->size >= MIN_CLASS_SIZE && class->size % HANDLE_SIZE == 0 && class->size <= page_size &&
           class->pages >= 1 && class->pages <= CHAIN_SIZE && class->objects >= 1 &&
           (uint64_t)class->objects * class->size <= span && (!below || class->size > below->size) &&
           class->huge == last && (!last || class->size == page_size);
}

static bool read_class(PyObject *rows, Py_ssize_t at, struct size_class *class)
{
    PyObject *row = PySequence_GetItem(rows, at);
    bool read = row && PyArg_ParseTuple(row, "HIHH", &class->index, &class->size, &class->pages, &class->objects);
    class->huge = class->pages == 1 && class->objects == 1;
    Py_XDECREF(row);
    return read;
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
        bool read = read_class(rows, at, &classes[at]);
        if (read && is_class(&classes[at], at ? &classes[at - 1] : NULL, page_size, at == length - 1))
            continue;
        if (read)
            PyErr_Format(PyExc_ValueError, "a pool cannot have class %zd as it is", at);
        free(classes);
        return NULL;
    }
    *count = (uint32_t)length;
    return classes;
}

static void release_mappings(Pool *self)
{
    Py_CLEAR(self->memory_view);
    PyBuffer_Release(&self->positions);
    PyBuffer_Release(&self->zspages);
    PyBuffer_Release(&self->memory);
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

static bool open_pool(Pool *self, unsigned page_size, struct size_class *classes, uint32_t count)
{
    uint32_t nr_pages = (uint32_t)(self->memory.len / page_size);
    arena_open(&self->core.arena, self->memory.buf, self->zspages.buf, nr_pages, (unsigned)__builtin_ctz(page_size));
    self->core.positions = self->positions.buf;
    self->core.nr_handles = self->positions.len / sizeof(uint64_t);
    if (zs_open(&self->core, page_size, classes, count))
        return true;
    self->core = (struct zs_pool){ 0 };
    PyErr_NoMemory();
    return false;
}

int pool_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Pool *self = (Pool *)object;
    static char *names[] = { "page_size", "classes", "memory", "zspages", "positions", NULL };
    PyObject *rows, *memory, *zspages, *positions;
    unsigned page_size;
    uint32_t count = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "IOOOO", names, &page_size, &rows, &memory, &zspages, &positions))
        return -1;
    if (self->core.classes || page_size < 4096 || page_size > 65536 || page_size & (page_size - 1)) {
        PyErr_SetString(PyExc_ValueError, "a pool is made once, with pages of 4096 to 65536 bytes");
        return -1;
    }
    struct size_class *classes = read_classes(rows, page_size, &count);
    if (!classes)
        return -1;
    if (export_mappings(self, memory, zspages, positions) && check_mappings(self, page_size) &&
        open_pool(self, page_size, classes, count))
        return 0;
    release_mappings(self);
    free(classes);
    return -1;
}

PyObject *pool_close(Pool *self, PyObject *Py_UNUSED(ignored))
{
    lock_pool_with_gil(self);
    struct zs_pool last = self->core;
    zs_forget(&self->core);
    unlock_pool(self, NULL);
    if (last.positions) { /* else somebody else closes it, or it never was open */
        Py_BEGIN_ALLOW_THREADS
        zs_reset(&last);
        Py_END_ALLOW_THREADS
        release_mappings(self);
    }
    Py_RETURN_NONE;
}

void pool_dealloc(Pool *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    release_mappings(self);
    zs_destroy(&self->core);
    pthread_mutex_destroy(&self->mutex);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}
