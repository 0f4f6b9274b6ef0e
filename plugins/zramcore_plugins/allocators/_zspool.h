/* What the files of the extension _zspool share. See _zspool.c for the rules about locks. */

#ifndef ZSPOOL_PYTHON_H
#define ZSPOOL_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>

#include "zspool.h"

#define FEW 16 /* a call on fewer objects is over before letting the GIL go would pay */

typedef struct {
    PyObject_HEAD
    pthread_mutex_t mutex;
    struct zs_pool core;
    bool compacting;
    Py_buffer memory, zspages, positions;
    PyObject *memory_view;
} Pool;

PyThreadState *lock_pool(Pool *self, bool keep_gil);
void unlock_pool(Pool *self, PyThreadState *saved);
void lock_pool_with_gil(Pool *self);
bool trim_waits(const Pool *self);
void settle(Pool *self, bool waits);

void raise_error(const char *kind, PyObject *reason, const char *hint);
void raise_not_allocated(PyObject *handle);
void raise_bad_handle(uint64_t handle);
void raise_bad_size(const Pool *self, Py_ssize_t size);
void raise_no_memory(const Pool *self, enum zs_error error);

/* An exception that waits until what came before it is done. */
typedef struct {
    PyObject *type, *value, *trace;
} Exception;

Exception catch(void);
void drop(Exception *exception);
bool raise_again(Exception *exception);

/* The handles in a sequence of ints or an array of uint64. When one cannot be read, those before are there and the
 * exception is kept. `values` must be freed; NULL, with an exception raised, when there are none. */
typedef struct {
    uint64_t *values;
    size_t count;
    Exception exception;
} Handles;

bool read_u64(PyObject *object, uint64_t *value);
bool read_handle(PyObject *object, uint64_t *handle);
Handles read_handles(PyObject *object);
bool check_count(const char *name, Py_ssize_t given, Py_ssize_t wanted);
bool read_array(PyObject *object, const char *name, Py_ssize_t width, int flags, Py_buffer *view);

PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
int pool_init(PyObject *object, PyObject *args, PyObject *kwargs);
PyObject *pool_close(Pool *self, PyObject *ignored);
void pool_dealloc(Pool *self);
PyObject *view_at(Pool *self, PyObject *handle_number, PyObject *size_number);
PyObject *pool_views(Pool *self, PyObject *const *args, Py_ssize_t count);
PyObject *pool_free_many(Pool *self, PyObject *argument);
PyObject *pool_store(Pool *self, PyObject *const *args, Py_ssize_t count);
PyObject *pool_store_packed(Pool *self, PyObject *const *args, Py_ssize_t count);
PyObject *pool_pages_freed_by(Pool *self, PyObject *const *args, Py_ssize_t count);

#endif
