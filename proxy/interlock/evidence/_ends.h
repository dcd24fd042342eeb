/* The open end of a file, and what the log that all share is told of it (linefile.py, redo.py). */

typedef struct {
    PyObject_HEAD
    PyObject *files;
    long long waiting, most;
} Tally;

typedef struct {
    PyObject_HEAD
    PyObject *fresh;
    PyObject *tally; /* None where nothing is told */
    long long size;
    int fd;
    char unsynced, lengthy;
} End;

static int tally_visit(Tally *self, visitproc visit, void *arg)
{
    Py_VISIT(self->files);
    return 0;
}

static int tally_clear(Tally *self)
{
    Py_CLEAR(self->files);
    return 0;
}

static void tally_dealloc(Tally *self)
{
    PyObject_GC_UnTrack(self);
    tally_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static int tally_init(Tally *self, PyObject *args, PyObject *names)
{
    static char *known[] = {"most", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, names, "L", known, &self->most))
        return -1;
    Py_XSETREF(self->files, PyList_New(0));
    return self->files == NULL ? -1 : 0;
}

static PyMemberDef tally_members[] = {
    {"files", T_OBJECT_EX, offsetof(Tally, files), 0, NULL},
    {"waiting", T_LONGLONG, offsetof(Tally, waiting), 0, NULL},
    {"most", T_LONGLONG, offsetof(Tally, most), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject TallyType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interlock.evidence._chain.Tally",
    .tp_basicsize = sizeof(Tally),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)tally_init,
    .tp_dealloc = (destructor)tally_dealloc,
    .tp_traverse = (traverseproc)tally_visit,
    .tp_clear = (inquiry)tally_clear,
    .tp_members = tally_members,
};

static int end_visit(End *self, visitproc visit, void *arg)
{
    Py_VISIT(self->fresh);
    Py_VISIT(self->tally);
    return 0;
}

static int end_clear(End *self)
{
    Py_CLEAR(self->fresh);
    Py_CLEAR(self->tally);
    return 0;
}

static void end_dealloc(End *self)
{
    PyObject_GC_UnTrack(self);
    end_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *end_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    (void)args, (void)names;
    End *self = (End *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->fd = -1;
    self->tally = Py_NewRef(Py_None);
    if ((self->fresh = PyList_New(0)) == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* Note what was written; `bytes` may be NULL, then they are made of `data` where they are kept. */
static int noted(End *self, PyObject *bytes, const char *data, Py_ssize_t size)
{
    self->size += size;
    if (self->tally == Py_None || self->tally == NULL)
        return 1;
    if (!Py_IS_TYPE(self->tally, &TallyType) || self->fresh == NULL || !PyList_CheckExact(self->fresh)) {
        PyErr_SetString(PyExc_TypeError, "an end is not whole");
        return 0;
    }
    Tally *tally = (Tally *)self->tally;
    if (!self->lengthy && PyList_GET_SIZE(self->fresh) == 0
        && (tally->files == NULL || !PyList_CheckExact(tally->files) || PyList_Append(tally->files, (PyObject *)self) < 0))
        return 0;
    tally->waiting += size;
    if (self->lengthy || tally->waiting > tally->most) {
        self->lengthy = 1;
        return PyList_SetSlice(self->fresh, 0, PyList_GET_SIZE(self->fresh), NULL) == 0;
    }
    PyObject *kept = bytes != NULL ? Py_NewRef(bytes) : PyBytes_FromStringAndSize(data, size);
    if (kept == NULL)
        return 0;
    int done = PyList_Append(self->fresh, kept) == 0;
    Py_DECREF(kept);
    return done;
}

static PyObject *end_noted(End *self, PyObject *bytes)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(PyExc_TypeError, "not bytes");
        return NULL;
    }
    if (!noted(self, bytes, NULL, PyBytes_GET_SIZE(bytes)))
        return NULL;
    Py_RETURN_NONE;
}

/* Append in one system call. A short one leaves a torn tail for good: it raises, and so its transcript is broken. */
static int end_append(End *self, const Buffer *b)
{
    self->unsynced = 1;
    ssize_t written = write(self->fd, b->data, b->size);
    if (written < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return 0;
    }
    if ((size_t)written != b->size) {
        errno = ENOSPC;
        PyErr_SetFromErrno(PyExc_OSError);
        return 0;
    }
    return noted(self, NULL, b->data, written);
}

static PyMethodDef end_methods[] = {
    {"noted", (PyCFunction)end_noted, METH_O, "Note what was written behind all before it."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef end_members[] = {
    {"fresh", T_OBJECT_EX, offsetof(End, fresh), 0, NULL},
    {"tally", T_OBJECT, offsetof(End, tally), 0, NULL},
    {"size", T_LONGLONG, offsetof(End, size), 0, NULL},
    {"fd", T_INT, offsetof(End, fd), 0, NULL},
    {"unsynced", T_BOOL, offsetof(End, unsynced), 0, NULL},
    {"lengthy", T_BOOL, offsetof(End, lengthy), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject EndType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interlock.evidence._chain.End",
    .tp_basicsize = sizeof(End),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = end_new,
    .tp_dealloc = (destructor)end_dealloc,
    .tp_traverse = (traverseproc)end_visit,
    .tp_clear = (inquiry)end_clear,
    .tp_methods = end_methods,
    .tp_members = end_members,
};
