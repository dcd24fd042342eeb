/* What recurs: the constant part of an event, and one event of it (forms.py). */

typedef struct {
    PyObject_HEAD
    PyObject *bare, *committing, *tails;
    char refers;
} Shape;

typedef struct {
    PyObject_HEAD
    PyObject *form, *given, *ref;
} FormedDraft;

static int shape_visit(Shape *self, visitproc visit, void *arg)
{
    Py_VISIT(self->bare);
    Py_VISIT(self->committing);
    Py_VISIT(self->tails);
    return 0;
}

static int shape_clear(Shape *self)
{
    Py_CLEAR(self->bare);
    Py_CLEAR(self->committing);
    Py_CLEAR(self->tails);
    return 0;
}

static void shape_dealloc(Shape *self)
{
    PyObject_GC_UnTrack(self);
    shape_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef shape_members[] = {
    {"bare", T_OBJECT_EX, offsetof(Shape, bare), 0, NULL},
    {"committing", T_OBJECT_EX, offsetof(Shape, committing), 0, NULL},
    {"tails", T_OBJECT_EX, offsetof(Shape, tails), 0, NULL},
    {"refers", T_BOOL, offsetof(Shape, refers), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject ShapeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interlock.evidence._chain.Shape",
    .tp_basicsize = sizeof(Shape),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)shape_dealloc,
    .tp_traverse = (traverseproc)shape_visit,
    .tp_clear = (inquiry)shape_clear,
    .tp_members = shape_members,
};

static void draft_dealloc(FormedDraft *self)
{
    Py_XDECREF(self->form);
    Py_XDECREF(self->given);
    Py_XDECREF(self->ref);
    Py_TYPE(self)->tp_free(self);
}

/* FormedDraft(form, ref, given): made for every event, so without keywords and without an __init__. */
static PyObject *draft_new(PyTypeObject *type, PyObject *form, PyObject *ref, PyObject *given)
{
    if (!PyObject_TypeCheck(form, &ShapeType) || !(ref == Py_None || PyLong_CheckExact(ref)) || !PyTuple_CheckExact(given)) {
        PyErr_SetString(PyExc_TypeError, "a draft is made of a form, a number or None, and a tuple");
        return NULL;
    }
    FormedDraft *self = (FormedDraft *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->form = Py_NewRef(form);
        self->ref = Py_NewRef(ref);
        self->given = Py_NewRef(given);
    }
    return (PyObject *)self;
}

static PyObject *draft_made(PyObject *type, PyObject *const *args, size_t count, PyObject *names)
{
    if (PyVectorcall_NARGS(count) != 3 || (names != NULL && PyTuple_GET_SIZE(names) > 0)) {
        PyErr_SetString(PyExc_TypeError, "a draft is made of a form, a number or None, and a tuple");
        return NULL;
    }
    return draft_new((PyTypeObject *)type, args[0], args[1], args[2]);
}

static PyObject *draft_made_slowly(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *form, *ref, *given;
    if (names != NULL && PyDict_GET_SIZE(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "a draft takes no keywords");
        return NULL;
    }
    return PyArg_UnpackTuple(args, "FormedDraft", 3, 3, &form, &ref, &given) ? draft_new(type, form, ref, given) : NULL;
}

static PyObject *draft_placed(FormedDraft *self, PyObject *seq)
{
    return PyObject_CallMethod(self->form, "placed", "OOO", self->ref, self->given, seq);
}

static PyMethodDef draft_methods[] = {
    {"placed", (PyCFunction)draft_placed, METH_O, "Return the event in plain values, as it is when it gets this seq."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef draft_members[] = {
    {"form", T_OBJECT_EX, offsetof(FormedDraft, form), READONLY, NULL},
    {"given", T_OBJECT_EX, offsetof(FormedDraft, given), READONLY, NULL},
    {"ref", T_OBJECT_EX, offsetof(FormedDraft, ref), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject DraftType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interlock.evidence._chain.FormedDraft",
    .tp_basicsize = sizeof(FormedDraft),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = draft_made_slowly,
    .tp_vectorcall = draft_made,
    .tp_dealloc = (destructor)draft_dealloc,
    .tp_methods = draft_methods,
    .tp_members = draft_members,
};
