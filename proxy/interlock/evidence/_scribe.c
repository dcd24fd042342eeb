/* The thread that writes the log which all transcripts share, for installations with a compiler: see scribe.py for what it is
 * for, part.py for its plain form, and tests/evidence/test_scribe.py for the two held against each other.
 *
 * `begin` runs under the interpreter's lock and notes where the bytes are. From there to the moment at which `wake` is written to,
 * the bytes, the notes and the buffer are the thread's, which never takes that lock: it sees no object, only what they hold. */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* libz.so.1, declared here so that its header need not be installed. */
extern unsigned long crc32(unsigned long crc, const unsigned char *data, unsigned int size);

#define HEAD 8        /* part._HEAD: length and CRC-32, both in network order */
#define NUMBER 24     /* room for a blank, an offset and a newline */
#define KEPT (1 << 20) /* bytes of room that the buffer keeps between two rounds */

typedef struct {
    const char *data;
    size_t size;
} Piece;

/* What one file was appended: its name, where, and the pieces from `first` on. */
typedef struct {
    Piece name;
    long long offset;
    size_t first, count, size;
} Record;

typedef struct {
    PyObject_HEAD
    PyObject *held; /* what the bytes belong to, while the thread has them */
    pthread_t thread;
    pthread_mutex_t turn;
    pthread_cond_t told;
    char runs, given, leaving;
    int wake, fd, error;
    Record *records;
    Piece *pieces;
    char *buffer;
    size_t record_count, piece_count, record_room, piece_room, room, size;
} Scribe;

/* -- in the thread ---------------------------------------------------------------------------------------------------------- */

static void network_order(char *to, uint32_t value)
{
    for (int i = 3; i >= 0; i--, value >>= 8)
        to[i] = (char)(value & 255);
}

static size_t encoded(char *to, const Record *record, const Piece *pieces)
{
    char *at = to + HEAD;
    memcpy(at, record->name.data, record->name.size);
    at += record->name.size;
    at += snprintf(at, NUMBER, " %lld\n", record->offset);
    for (size_t i = record->first; i < record->first + record->count; i++) {
        memcpy(at, pieces[i].data, pieces[i].size);
        at += pieces[i].size;
    }
    size_t body = (size_t)(at - to) - HEAD;
    network_order(to, (uint32_t)body);
    network_order(to + 4, (uint32_t)crc32(0, (const unsigned char *)to + HEAD, (unsigned int)body));
    return body + HEAD;
}

/* Encode, write and sync one round; return an errno. */
static int written(Scribe *self)
{
    size_t wanted = 0;
    for (size_t i = 0; i < self->record_count; i++)
        wanted += HEAD + self->records[i].name.size + NUMBER + self->records[i].size;
    if (wanted > self->room) {
        free(self->buffer);
        self->room = 0;
        if ((self->buffer = malloc(wanted)) == NULL)
            return ENOMEM;
        self->room = wanted;
    }
    self->size = 0;
    for (size_t i = 0; i < self->record_count; i++)
        self->size += encoded(self->buffer + self->size, &self->records[i], self->pieces);
    ssize_t done = write(self->fd, self->buffer, self->size);
    int failed = done < 0 ? errno : (size_t)done != self->size ? ENOSPC : fdatasync(self->fd) < 0 ? errno : 0;
    if (self->room > KEPT) {
        free(self->buffer);
        self->buffer = NULL;
        self->room = 0;
    }
    return failed;
}

static void *rounds(void *scribe)
{
    Scribe *self = scribe;
    pthread_mutex_lock(&self->turn);
    for (;;) {
        while (!self->given && !self->leaving)
            pthread_cond_wait(&self->told, &self->turn);
        if (!self->given)
            break;
        pthread_mutex_unlock(&self->turn);
        int error = written(self);
        pthread_mutex_lock(&self->turn);
        self->error = error;
        self->given = 0;
        uint64_t one = 1;
        while (write(self->wake, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&self->turn);
    return NULL;
}

/* -- on the loop -------------------------------------------------------------------------------------------------------------- */

static int roomy(void **data, size_t *room, size_t count, size_t size)
{
    if (count < *room)
        return 1;
    size_t wanted = *room * 2 + 64;
    void *more = PyMem_RawRealloc(*data, wanted * size);
    if (more == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    *data = more;
    *room = wanted;
    return 1;
}

static int held_too(PyObject *held, PyObject *object)
{
    if (object == NULL || PyList_Append(held, object) < 0) {
        Py_XDECREF(object);
        return 0;
    }
    Py_DECREF(object);
    return 1;
}

/* Note one (name, offset, pieces), and hold what its bytes belong to: of the list of pieces a copy, whose end is not another's. */
static int noted(Scribe *self, PyObject *held, PyObject *appended)
{
    if (!PyTuple_CheckExact(appended) || PyTuple_GET_SIZE(appended) != 3 || !PyBytes_CheckExact(PyTuple_GET_ITEM(appended, 0))
        || !PyList_CheckExact(PyTuple_GET_ITEM(appended, 2))) {
        PyErr_SetString(PyExc_TypeError, "appended is a name, an offset and a list of bytes");
        return 0;
    }
    PyObject *name = PyTuple_GET_ITEM(appended, 0), *pieces = PyList_AsTuple(PyTuple_GET_ITEM(appended, 2));
    if (!held_too(held, pieces) || !held_too(held, Py_NewRef(name)))
        return 0;
    long long offset = PyLong_AsLongLong(PyTuple_GET_ITEM(appended, 1));
    if (offset == -1 && PyErr_Occurred())
        return 0;
    if (!roomy((void **)&self->records, &self->record_room, self->record_count, sizeof *self->records))
        return 0;
    Record *record = &self->records[self->record_count++];
    *record = (Record){{PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)}, offset, self->piece_count, 0, 0};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(pieces); i++) {
        PyObject *piece = PyTuple_GET_ITEM(pieces, i);
        if (!PyBytes_CheckExact(piece)) {
            PyErr_SetString(PyExc_TypeError, "a piece is bytes");
            return 0;
        }
        if (!roomy((void **)&self->pieces, &self->piece_room, self->piece_count, sizeof *self->pieces))
            return 0;
        self->pieces[self->piece_count++] = (Piece){PyBytes_AS_STRING(piece), (size_t)PyBytes_GET_SIZE(piece)};
        record->count++;
        record->size += (size_t)PyBytes_GET_SIZE(piece);
    }
    if (record->name.size + record->size > UINT32_MAX / 2) {
        PyErr_SetString(PyExc_OverflowError, "more than a record can hold");
        return 0;
    }
    return 1;
}

static PyObject *scribe_begin(Scribe *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "begin takes a descriptor and a list of what was appended");
        return NULL;
    }
    if (!self->runs || self->held != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a scribe writes one round at a time, and none once it is closed");
        return NULL;
    }
    int fd = _PyLong_AsInt(args[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    PyObject *held = PyList_New(0);
    if (held == NULL)
        return NULL;
    self->record_count = self->piece_count = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[1]); i++)
        if (!noted(self, held, PyList_GET_ITEM(args[1], i))) {
            Py_DECREF(held);
            return NULL;
        }
    self->held = held;
    self->fd = fd;
    pthread_mutex_lock(&self->turn);
    self->given = 1;
    pthread_cond_signal(&self->told);
    pthread_mutex_unlock(&self->turn);
    Py_RETURN_NONE;
}

static PyObject *scribe_end(Scribe *self, PyObject *unused)
{
    (void)unused;
    pthread_mutex_lock(&self->turn);
    int busy = self->given, error = self->error;
    pthread_mutex_unlock(&self->turn);
    if (busy || self->held == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "no round has ended");
        return NULL;
    }
    Py_CLEAR(self->held);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromSize_t(self->size);
}

static PyObject *scribe_close(Scribe *self, PyObject *unused)
{
    (void)unused;
    if (self->runs) {
        self->runs = 0;
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&self->turn);
        self->leaving = 1;
        pthread_cond_signal(&self->told);
        pthread_mutex_unlock(&self->turn);
        pthread_join(self->thread, NULL);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *scribe_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    static char *known[] = {"wake", NULL};
    int wake;
    if (!PyArg_ParseTupleAndKeywords(args, names, "i", known, &wake))
        return NULL;
    Scribe *self = (Scribe *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->wake = wake;
    pthread_mutex_init(&self->turn, NULL);
    pthread_cond_init(&self->told, NULL);
    /* Signals are for the thread that runs the loop. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&self->thread, NULL, rounds, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        Py_DECREF(self);
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    self->runs = 1;
    pthread_setname_np(self->thread, "evidence-scribe");
    return (PyObject *)self;
}

static void scribe_dealloc(Scribe *self)
{
    Py_XDECREF(scribe_close(self, NULL));
    Py_XDECREF(self->held);
    pthread_cond_destroy(&self->told);
    pthread_mutex_destroy(&self->turn);
    PyMem_RawFree(self->records);
    PyMem_RawFree(self->pieces);
    free(self->buffer);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef scribe_methods[] = {
    {"begin", (PyCFunction)(void (*)(void))scribe_begin, METH_FASTCALL, "Begin to write these to a descriptor, and to sync it."},
    {"end", (PyCFunction)scribe_end, METH_NOARGS, "Return how many bytes were written, or raise OSError. After `wake` was written to."},
    {"close", (PyCFunction)scribe_close, METH_NOARGS, "See through what was begun, and end the thread."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ScribeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interlock.evidence._scribe.Scribe",
    .tp_basicsize = sizeof(Scribe),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = scribe_new,
    .tp_dealloc = (destructor)scribe_dealloc,
    .tp_methods = scribe_methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_scribe", NULL, 0, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scribe(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddType(made, &ScribeType) < 0)
        Py_CLEAR(made);
    return made;
}
