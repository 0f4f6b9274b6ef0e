/* What the files of the extension `_batch` share; _batch.c says what it is. */
#ifndef ZRAMCORE_BATCH_H
#define ZRAMCORE_BATCH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The layout of slot_table.py's flags; the module tells it, and a test compares the two. */
#define SIZE_MASK ((1u << 17) - 1)
#define SAME (1u << 17)
#define WB (1u << 18)
#define PP_SLOT (1u << 19)
#define HUGE_PAGE (1u << 20)
#define IDLE (1u << 21)
#define INCOMPRESSIBLE (1u << 22)
#define PRIORITY_MASK (3u << 23)

#define CALLS 2 /* native.BATCH_CALLS: raised whenever the calls change */
#define WORD 8
#define UNSET UINT64_MAX /* a handle that was not given */

/* A Python type of one of our structs, made by PyType_FromSpec. */
void free_object(PyObject *self);

/* _batch_codec.c: the functions of a plugin. */
typedef int (*compress_fn)(void *state, const char *page, char *out, int page_size, int out_size, int level);
typedef int (*decompress_fn)(const char *data, char *page, int data_size, int page_size);

typedef struct {
    PyObject_HEAD
    compress_fn compress;
    decompress_fn decompress;
    Py_ssize_t state_size;
    int level;
    int most_bytes; /* of a compressed page */
    bool quick;     /* a page takes so little that giving up the GIL for it costs more */
} Codec;

extern PyType_Spec codec_spec;
extern PyTypeObject *codec_type;
void *codec_state(Codec *codec);
PyObject *bare_compress(PyObject *module, PyObject *args);
PyObject *bare_decompress(PyObject *module, PyObject *args);

/* _batch_crew.c: the workers. */
typedef void (*part_fn)(void *job, int part);

typedef struct {
    pthread_mutex_t busy; /* held by the one job that is being worked on */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake, done;
    pthread_t *threads;
    int count; /* workers that there are */
    int seats; /* workers that may still join the job */
    int at_work;
    bool stop;   /* the workers end */
    bool closed; /* there will be none again */
    unsigned long round;
    part_fn run;
    void *job;
    int parts;
    atomic_int next;
    pid_t owner; /* a forked child has no workers */
} Crew;

void crew_init(Crew *crew);
void crew_stop(Crew *crew);
void crew_run(Crew *crew, int workers, part_fn run, void *job, int parts);

/* _batch_pages.c: an initialised device. */
typedef int (*replace_fn)(void *pool, const char *data, uint32_t size, uint64_t limit, uint64_t replaced, uint64_t *handle);

typedef struct {
    PyObject_HEAD
    Codec *codec;
    int page_size;
    int huge_class_size;
    int workers;
    int part_pages;
    replace_fn replace; /* Allocator.replace_one */
    void *pool;
    Py_buffer flags, handles, ac_times, positions, memory;
    bool held;
    Py_ssize_t nr_slots, nr_positions;
    Crew crew;
} Pages;

/* Rows that a call is about: `count` of them from `first` on, or those that `indexes` names. */
typedef struct {
    Py_ssize_t first, count;
    const uint64_t *indexes;
    Py_buffer view;
} Rows;

extern PyType_Spec pages_spec;
bool check_rows(Pages *self, Py_ssize_t first, Py_ssize_t count);
bool check_length(const char *what, Py_ssize_t length, Py_ssize_t least);
bool take_rows(Pages *self, PyObject *where, Py_ssize_t count, Rows *rows);
void give_rows(Rows *rows);
int parts_of(Pages *self, Py_ssize_t count);

static inline Py_ssize_t row_at(const Rows *rows, Py_ssize_t i)
{
    return rows->indexes ? (Py_ssize_t)rows->indexes[i] : rows->first + i;
}

static inline uint32_t *flags_of(Pages *self) { return self->flags.buf; }
static inline uint64_t *handles_of(Pages *self) { return self->handles.buf; }
static inline uint32_t *ac_times_of(Pages *self) { return self->ac_times.buf; }

/* _batch_compress.c */
PyObject *pages_compress(Pages *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *pages_compress_page(Pages *self, PyObject *page);
bool same_filled(const char *page, int page_size, uint64_t *word);
bool compress_small(Pages *self, const char *page, char **scratch, uint32_t *flags);

/* _batch_write.c */
PyObject *pages_write_page(Pages *self, PyObject *const *args, Py_ssize_t nargs);

/* _batch_rows.c */
PyObject *pages_prepare(Pages *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *pages_assign(Pages *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *batch_change(PyObject *module, PyObject *args);

/* _batch_read.c */
const char *object_of(Pages *self, uint64_t handle, uint32_t size);
bool expand_row(Pages *self, Py_ssize_t index, char *page);
PyObject *pages_read(Pages *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *pages_read_into(Pages *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *pages_read_page(Pages *self, PyObject *const *args, Py_ssize_t nargs);

/* _batch_pass.c */
PyObject *pages_take(Pages *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *pages_commit(Pages *self, PyObject *const *args, Py_ssize_t nargs);

#endif
