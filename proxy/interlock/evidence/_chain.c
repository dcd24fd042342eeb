/* The open end of a transcript, for installations with a compiler and OpenSSL 3: see chain.py for what it means and for its
 * plain form, and tests/evidence/test_chain.py for the two held against each other. Hashes are OpenSSL's, by its provider
 * interface (so those of a FIPS provider where one is configured).
 *
 * Lines are written without giving other threads the interpreter: it takes a microsecond, and handing the interpreter to and fro
 * took longer than that. All buffers are the module's own and only used by one call at a time, under the interpreter's lock. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>
#include <time.h>
#include <unistd.h>

#include "_shapes.h"
#include "_lines.h"
#include "_ends.h"

#define MOST_GIVEN 8 /* disclosures of an event beside its form's own, as many as are ordinary */
#define CLOCK_BOUND_US 1000000

typedef struct {
    PyObject_HEAD
    PyObject *name, *events, *disclosures, *wall, *monotonic, *known, *meet, *beginnings, *draw;
    long long seq, mono_us, wall_us, base_us, second;
    char prev[64], stamp[27], open;
} Chain;

static int chain_visit(Chain *self, visitproc visit, void *arg)
{
    Py_VISIT(self->name);
    Py_VISIT(self->events);
    Py_VISIT(self->disclosures);
    Py_VISIT(self->wall);
    Py_VISIT(self->monotonic);
    Py_VISIT(self->known);
    Py_VISIT(self->meet);
    Py_VISIT(self->beginnings);
    Py_VISIT(self->draw);
    return 0;
}

static int chain_clear(Chain *self)
{
    Py_CLEAR(self->name);
    Py_CLEAR(self->events);
    Py_CLEAR(self->disclosures);
    Py_CLEAR(self->wall);
    Py_CLEAR(self->monotonic);
    Py_CLEAR(self->known);
    Py_CLEAR(self->meet);
    Py_CLEAR(self->beginnings);
    Py_CLEAR(self->draw);
    return 0;
}

static void chain_dealloc(Chain *self)
{
    PyObject_GC_UnTrack(self);
    chain_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static int moment(PyObject *clock, long long *us)
{
    PyObject *now = PyObject_CallNoArgs(clock);
    if (now == NULL)
        return 0;
    long long ns = PyLong_AsLongLong(now);
    Py_DECREF(now);
    *us = ns / 1000;
    return !(ns == -1 && PyErr_Occurred());
}

static int chain_init(Chain *self, PyObject *args, PyObject *names)
{
    static char *known[] = {"name", "events", "disclosures", "wall_ns", "monotonic_ns", "meet", "draw", NULL};
    PyObject *name, *events, *disclosures, *wall, *monotonic, *meet, *draw;
    if (!PyArg_ParseTupleAndKeywords(args, names, "SO!OOOOO", known, &name, &EndType, &events, &disclosures, &wall, &monotonic,
                                     &meet, &draw))
        return -1;
    if (self->name != NULL) {
        PyErr_SetString(PyExc_TypeError, "a chain is begun once");
        return -1;
    }
    self->name = Py_NewRef(name);
    self->events = Py_NewRef(events);
    self->disclosures = Py_NewRef(PyObject_TypeCheck(disclosures, &EndType) ? disclosures : Py_None);
    self->wall = Py_NewRef(wall);
    self->monotonic = Py_NewRef(monotonic);
    self->meet = Py_NewRef(meet);
    self->draw = Py_NewRef(draw);
    self->known = PySet_New(NULL);
    self->beginnings = PyList_New(0);
    memset(self->prev, '0', sizeof self->prev);
    self->second = -1;
    self->open = 1;
    if (self->known == NULL || self->beginnings == NULL || !moment(monotonic, &self->base_us) || !moment(wall, &self->wall_us))
        return -1;
    return 0;
}

/* Write RFC 3339 with six digits and Z to `stamp`; moments of one second share its text. False for a year of another length. */
static int stamped(Chain *self, long long wall_us)
{
    long long second = wall_us / 1000000, micros = wall_us % 1000000;
    if (second != self->second) {
        time_t at = (time_t)second;
        struct tm parts;
        char text[21];
        if (wall_us < 0 || gmtime_r(&at, &parts) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.", &parts) != 20)
            return 0;
        memcpy(self->stamp, text, 20);
        self->second = second;
    }
    for (int i = 25; i >= 20; i--, micros /= 10)
        self->stamp[i] = (char)('0' + micros % 10);
    self->stamp[26] = 'Z';
    return 1;
}

/* Whether all of these are formed, known and of ordinary size; then there are salts for them. -1: an exception. */
static int ordinary(Chain *self, PyObject *const *drafts, Py_ssize_t count)
{
    Py_ssize_t salts = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!Py_IS_TYPE(drafts[i], &DraftType))
            return 0;
        FormedDraft *draft = (FormedDraft *)drafts[i];
        Shape *form = (Shape *)draft->form;
        if (PyTuple_GET_SIZE(draft->given) > MOST_GIVEN)
            return 0;
        int known = PySet_Contains(self->known, draft->form);
        if (known == 0) {
            PyObject *met = PyObject_CallOneArg(self->meet, draft->form);
            if (met == NULL)
                return -1;
            known = PyObject_IsTrue(met);
            Py_DECREF(met);
        }
        if (known <= 0)
            return known;
        salts += PyTuple_GET_SIZE(draft->given) + (form->tails != NULL ? PyTuple_GET_SIZE(form->tails) : 0);
    }
    if (PyList_GET_SIZE(self->beginnings) < salts) {
        PyObject *wanted = PyLong_FromSsize_t(salts), *drawn = wanted ? PyObject_CallOneArg(self->draw, wanted) : NULL;
        Py_XDECREF(wanted);
        if (drawn == NULL)
            return -1;
        Py_DECREF(drawn);
    }
    return 1;
}

static PyObject *chain_append(Chain *self, PyObject *const *drafts, Py_ssize_t count)
{
    long long wall_us, mono_us;
    if (!self->open || count == 0 || self->disclosures == Py_None)
        Py_RETURN_NONE;
    int fit = ordinary(self, drafts, count);
    if (fit < 0)
        return NULL;
    if (!fit)
        Py_RETURN_NONE;
    if (!moment(self->wall, &wall_us) || !moment(self->monotonic, &mono_us))
        return NULL;
    mono_us -= self->base_us;
    if (mono_us < self->mono_us)
        mono_us = self->mono_us;
    long long step = wall_us - self->wall_us - (mono_us - self->mono_us);
    if (step < -CLOCK_BOUND_US || step > CLOCK_BOUND_US || !stamped(self, wall_us))
        Py_RETURN_NONE;
    char prev[64];
    memcpy(prev, self->prev, 64);
    /* No code of others runs from here to the writes. */
    if (!encode(drafts, count, self->seq, prev, mono_us, self->name, self->stamp, sizeof self->stamp, self->beginnings))
        return NULL;
    if ((secrets.size > 0 && !end_append((End *)self->disclosures, &secrets)) || !end_append((End *)self->events, &lines)) {
        self->open = 0;
        return NULL;
    }
    shrink(&lines);
    shrink(&secrets);
    long long first = self->seq;
    self->seq += count;
    memcpy(self->prev, prev, 64);
    self->mono_us = mono_us;
    self->wall_us = wall_us;
    return PyLong_FromLongLong(first);
}

static PyObject *chain_get_prev(Chain *self, void *unused)
{
    (void)unused;
    return PyBytes_FromStringAndSize(self->prev, 64);
}

static int chain_set_prev(Chain *self, PyObject *value, void *unused)
{
    (void)unused;
    if (value == NULL || !PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) != 64) {
        PyErr_SetString(PyExc_TypeError, "a hash in hex is 64 bytes");
        return -1;
    }
    memcpy(self->prev, PyBytes_AS_STRING(value), 64);
    return 0;
}

static PyMethodDef chain_methods[] = {
    {"append", (PyCFunction)(void (*)(void))chain_append, METH_FASTCALL, "Write these events, or return None: they are not ordinary."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef chain_computed[] = {
    {"prev", (getter)chain_get_prev, (setter)chain_set_prev, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef chain_members[] = {
    {"seq", T_LONGLONG, offsetof(Chain, seq), 0, NULL},
    {"mono_us", T_LONGLONG, offsetof(Chain, mono_us), 0, NULL},
    {"wall_us", T_LONGLONG, offsetof(Chain, wall_us), 0, NULL},
    {"base_us", T_LONGLONG, offsetof(Chain, base_us), READONLY, NULL},
    {"open", T_BOOL, offsetof(Chain, open), 0, NULL},
    {"known", T_OBJECT_EX, offsetof(Chain, known), READONLY, NULL},
    {"beginnings", T_OBJECT_EX, offsetof(Chain, beginnings), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject ChainType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "interlock.evidence._chain.Chain",
    .tp_basicsize = sizeof(Chain),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)chain_init,
    .tp_dealloc = (destructor)chain_dealloc,
    .tp_traverse = (traverseproc)chain_visit,
    .tp_clear = (inquiry)chain_clear,
    .tp_methods = chain_methods,
    .tp_members = chain_members,
    .tp_getset = chain_computed,
};

static PyMethodDef methods[] = {
    {"encoded_tail", (PyCFunction)(void (*)(void))encoded_tail, METH_FASTCALL, "Return what follows the salt in a disclosure."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_chain", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__chain(void)
{
    if (sha256 == NULL && ((sha256 = EVP_MD_fetch(NULL, "SHA256", NULL)) == NULL || (context = EVP_MD_CTX_new()) == NULL)) {
        PyErr_SetString(PyExc_ImportError, "OpenSSL gives no SHA-256");
        return NULL;
    }
    PyObject *made = PyModule_Create(&module);
    if (made != NULL
        && (PyModule_AddType(made, &ShapeType) < 0 || PyModule_AddType(made, &DraftType) < 0 || PyModule_AddType(made, &TallyType) < 0
            || PyModule_AddType(made, &EndType) < 0 || PyModule_AddType(made, &ChainType) < 0))
        Py_CLEAR(made);
    return made;
}
