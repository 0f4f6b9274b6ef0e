/* Arguments from Python, and errors to it. All of this runs with the GIL and without the mutex. */

#include "_zspool.h"

#include <string.h>

/* Raise a class of zramcore.errors; takes over `reason`, NULL where making it raised already. */
void raise_error(const char *kind, PyObject *reason, const char *hint)
{
    if (!reason)
        return;
    PyObject *module = PyImport_ImportModule("zramcore.errors");
    PyObject *type = module ? PyObject_GetAttrString(module, kind) : NULL;
    PyObject *arguments = type ? PyTuple_Pack(1, reason) : NULL;
    PyObject *fields = arguments ? Py_BuildValue("{s:s}", "hint", hint) : NULL;
    PyObject *error = fields ? PyObject_Call(type, arguments, fields) : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(fields);
    Py_XDECREF(arguments);
    Py_XDECREF(type);
    Py_XDECREF(module);
    Py_DECREF(reason);
}

void raise_not_allocated(PyObject *handle)
{
    raise_error("InvalidValue", PyUnicode_FromFormat("zsmalloc: handle %S is not allocated", handle),
                "it was freed, or never handed out");
}

void raise_bad_handle(uint64_t handle)
{
    PyObject *number = PyLong_FromUnsignedLongLong(handle);
    if (number)
        raise_not_allocated(number);
    Py_XDECREF(number);
}

void raise_bad_size(const Pool *self, Py_ssize_t size)
{
    if (size < 1)
        raise_error("InvalidValue", PyUnicode_FromFormat("zsmalloc: an object of %zd bytes", size), "");
    else
        raise_error("NoSpace",
                    PyUnicode_FromFormat("zsmalloc: an object of %zd bytes, more than a page of %u", size,
                                         (unsigned)self->core.page_size),
                    "");
}

void raise_no_memory(const Pool *self, enum zs_error error)
{
    PyObject *reason;
    if (error == ZS_NO_HANDLE && self->core.nr_handles)
        reason = PyUnicode_FromFormat("all %llu handles are in use", (unsigned long long)self->core.nr_handles - 1);
    else
        reason = PyUnicode_FromString("the pool's address space is used up");
    raise_error("NoMemory", reason, "");
}

bool read_u64(PyObject *object, uint64_t *value)
{
    PyObject *number = PyNumber_Index(object);
    if (!number)
        return false;
    *value = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    return *value != (uint64_t)-1 || !PyErr_Occurred();
}

/* A handle; an int that cannot be one is as any other that is not allocated. */
bool read_handle(PyObject *object, uint64_t *handle)
{
    if (read_u64(object, handle))
        return true;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        raise_not_allocated(object);
    }
    return false;
}

bool check_count(const char *name, Py_ssize_t given, Py_ssize_t wanted)
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

bool read_array(PyObject *object, const char *name, Py_ssize_t width, int flags, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | flags) < 0)
        return false;
    if (holds_unsigned(view, width))
        return true;
    PyErr_Format(PyExc_TypeError, "%s must be an array of uint%zd", name, 8 * width);
    PyBuffer_Release(view);
    return false;
}

Exception catch(void)
{
    Exception exception;
    PyErr_Fetch(&exception.type, &exception.value, &exception.trace);
    return exception;
}

void drop(Exception *exception)
{
    Py_CLEAR(exception->type);
    Py_CLEAR(exception->value);
    Py_CLEAR(exception->trace);
}

/* Whether there was one. */
bool raise_again(Exception *exception)
{
    if (!exception->type)
        return false;
    PyErr_Restore(exception->type, exception->value, exception->trace);
    return true;
}

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

/* Read handles into `values`, which has room for all of the list. */
static void handles_of_list(PyObject *list, Handles *handles)
{
    Py_ssize_t length = PyList_Size(list);
    while ((Py_ssize_t)handles->count < length) {
        if (!read_handle(PyList_GetItem(list, handles->count), &handles->values[handles->count])) {
            handles->exception = catch();
            return;
        }
        handles->count++;
    }
}

Handles read_handles(PyObject *object)
{
    Handles handles = { 0 };
    if (PyObject_CheckBuffer(object) && handles_of_array(object, &handles))
        return handles;
    PyObject *list = PySequence_List(object);
    if (list && (handles.values = PyMem_Malloc(PyList_Size(list) * sizeof(uint64_t) + 1)))
        handles_of_list(list, &handles);
    else if (list)
        PyErr_NoMemory();
    Py_XDECREF(list);
    return handles;
}
