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

/* libcrypto.so.3, declared here so that its headers need not be installed. */
typedef struct evp_md_st EVP_MD;
typedef struct evp_md_ctx_st EVP_MD_CTX;
extern EVP_MD *EVP_MD_fetch(void *library, const char *algorithm, const char *properties);
extern EVP_MD_CTX *EVP_MD_CTX_new(void);
extern int EVP_DigestInit_ex2(EVP_MD_CTX *ctx, const EVP_MD *type, const void *params);
extern int EVP_DigestUpdate(EVP_MD_CTX *ctx, const void *data, size_t size);
extern int EVP_DigestFinal_ex(EVP_MD_CTX *ctx, unsigned char *md, unsigned int *size);

#define BEGINNING 32   /* bytes of disclosure.beginnings */
#define DIGEST 43      /* characters of a SHA-256 in base64url without padding */
#define MOST_TAILS 16  /* more in one event than any form has */
#define BEFORE (-1)    /* forms.BEFORE */

#define MOST_GIVEN 8   /* disclosures of an event beside its form's own */
#define CLOCK_BOUND_US 1000000

static EVP_MD *sha256;
static EVP_MD_CTX *context;

typedef struct {
    char *data;
    size_t size, room;
} Buffer;

static int grow(Buffer *b, size_t more)
{
    if (b->room - b->size >= more)
        return 1;
    if (more > SIZE_MAX / 4 || b->size > SIZE_MAX / 4) {
        PyErr_NoMemory();
        return 0;
    }
    size_t room = (b->size + more) * 2;
    char *data = PyMem_Realloc(b->data, room);
    if (data == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    b->data = data;
    b->room = room;
    return 1;
}

static int put(Buffer *b, const char *data, size_t size)
{
    if (!grow(b, size))
        return 0;
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return 1;
}

static int put_bytes(Buffer *b, PyObject *bytes)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_SetString(PyExc_TypeError, "not bytes");
        return 0;
    }
    return put(b, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

static int put_number(Buffer *b, long long value)
{
    char text[20], *at = text + sizeof text;
    unsigned long long left = value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value;
    do
        *--at = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (value < 0)
        *--at = '-';
    return put(b, at, (size_t)(text + sizeof text - at));
}

static int hashed(unsigned char out[32], const char *first, size_t first_size, const char *data, size_t size)
{
    if (EVP_DigestInit_ex2(context, sha256, NULL) == 1 && EVP_DigestUpdate(context, first, first_size) == 1
        && EVP_DigestUpdate(context, data, size) == 1 && EVP_DigestFinal_ex(context, out, NULL) == 1)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "SHA-256 failed");
    return 0;
}

static void base64url(char out[DIGEST], const unsigned char in[32])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = 0; i < 10; i++) {
        uint32_t v = (uint32_t)in[3 * i] << 16 | (uint32_t)in[3 * i + 1] << 8 | in[3 * i + 2];
        out[4 * i] = alphabet[v >> 18];
        out[4 * i + 1] = alphabet[v >> 12 & 63];
        out[4 * i + 2] = alphabet[v >> 6 & 63];
        out[4 * i + 3] = alphabet[v & 63];
    }
    uint32_t v = (uint32_t)in[30] << 16 | (uint32_t)in[31] << 8;
    out[40] = alphabet[v >> 18];
    out[41] = alphabet[v >> 12 & 63];
    out[42] = alphabet[v >> 6 & 63];
}

/* -- what recurs: the constant part of an event, and one event of it (forms.py) -------------------------------------------- */

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

/* -- lines and their disclosures ------------------------------------------------------------------------------------------- */

/* What follows the salt in a disclosure (disclosure.encoded_tail): base64url of `",` name `,` value `]`. */
static PyObject *encoded_tail(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (void)self;
    if (argc != 2 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "a tail is made of the bytes of a name and of a value");
        return NULL;
    }
    const struct { const char *data; Py_ssize_t size; } parts[] = {
        {"\",", 2}, {PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0])}, {",", 1},
        {PyBytes_AS_STRING(args[1]), PyBytes_GET_SIZE(args[1])}, {"]", 1},
    };
    if (parts[1].size > PY_SSIZE_T_MAX / 8 || parts[3].size > PY_SSIZE_T_MAX / 8)
        return PyErr_NoMemory();
    Py_ssize_t size = parts[1].size + parts[3].size + 4;
    PyObject *made = PyBytes_FromStringAndSize(NULL, (size * 4 + 2) / 3);
    if (made == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(made);
    uint32_t bits = 0;
    int kept = 0; /* bits that are not written yet */
    for (int i = 0; i < 5; i++)
        for (Py_ssize_t at = 0; at < parts[i].size; at++) {
            bits = bits << 8 | (unsigned char)parts[i].data[at];
            for (kept += 8; kept >= 6; kept -= 6)
                *to++ = alphabet[bits >> (kept - 6) & 63];
        }
    if (kept > 0)
        *to++ = alphabet[bits << (6 - kept) & 63];
    return made;
}

static int by_text(const void *a, const void *b)
{
    return memcmp(a, b, DIGEST);
}

/* Add the disclosures of one event to `secrets` and their digests to `digests`; take their salts from the end of `salts`. */
static int committed(Buffer *secrets, char digests[][DIGEST], Py_ssize_t *count, Py_ssize_t *salts_left, PyObject *salts,
                     PyObject *tails, long long seq)
{
    if (!PyTuple_CheckExact(tails)) {
        PyErr_SetString(PyExc_TypeError, "tails are a tuple");
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tails); i++) {
        PyObject *tail = PyTuple_GET_ITEM(tails, i);
        if (*count >= MOST_TAILS || *salts_left <= 0) {
            PyErr_SetString(PyExc_IndexError, "more disclosures than salts or places");
            return 0;
        }
        PyObject *salt = PyList_GET_ITEM(salts, *salts_left - 1);
        if (!PyBytes_CheckExact(tail) || !PyBytes_CheckExact(salt) || PyBytes_GET_SIZE(salt) != BEGINNING) {
            PyErr_SetString(PyExc_TypeError, "a tail or a beginning is not what it should be");
            return 0;
        }
        unsigned char digest[32];
        if (!put(secrets, "{\"d\":\"", 6) || !put(secrets, PyBytes_AS_STRING(salt), BEGINNING) || !put_bytes(secrets, tail)
            || !put(secrets, "\",\"seq\":", 8) || !put_number(secrets, seq) || !put(secrets, "}\n", 2)
            || !hashed(digest, PyBytes_AS_STRING(salt), BEGINNING, PyBytes_AS_STRING(tail), (size_t)PyBytes_GET_SIZE(tail)))
            return 0;
        base64url(digests[(*count)++], digest);
        (*salts_left)--;
    }
    return 1;
}

/* Add one event's line; `prev` is the hash of the line before, in hex, and becomes this one's. */
static int line(Buffer *lines, PyObject *pieces, Py_ssize_t wanted, char digests[][DIGEST], Py_ssize_t count, long long mono_us,
                char prev[64], int refers, long long ref, long long seq, PyObject *name, const char *ts, size_t ts_size)
{
    static const char hex[] = "0123456789abcdef";
    if (!PyTuple_CheckExact(pieces) || PyTuple_GET_SIZE(pieces) != wanted) {
        PyErr_SetString(PyExc_TypeError, "a form has not as many pieces as places");
        return 0;
    }
    size_t start = lines->size;
    Py_ssize_t at = 0;
#define PIECE put_bytes(lines, PyTuple_GET_ITEM(pieces, at++))
    if (!PIECE)
        return 0;
    if (count > 0) {
        for (Py_ssize_t i = 0; i < count; i++)
            if ((i > 0 && !put(lines, "\",\"", 3)) || !put(lines, digests[i], DIGEST))
                return 0;
        if (!PIECE)
            return 0;
    }
    if (!put_number(lines, mono_us) || !PIECE || !put(lines, prev, 64) || !PIECE)
        return 0;
    if (refers && (!put_number(lines, ref) || !PIECE))
        return 0;
    if (!put_number(lines, seq) || !PIECE || !put_bytes(lines, name) || !PIECE || !put(lines, ts, ts_size) || !PIECE)
        return 0;
#undef PIECE
    unsigned char digest[32];
    if (!hashed(digest, "\0", 1, lines->data + start, lines->size - start))
        return 0;
    for (int i = 0; i < 32; i++) {
        prev[2 * i] = hex[digest[i] >> 4];
        prev[2 * i + 1] = hex[digest[i] & 15];
    }
    return put(lines, "\n", 1);
}

static int event(Buffer *lines, Buffer *secrets, PyObject *draft, long long seq, char prev[64], long long mono_us, PyObject *name,
                 const char *ts, size_t ts_size, PyObject *salts, Py_ssize_t *salts_left)
{
    if (!Py_IS_TYPE(draft, &DraftType)) {
        PyErr_SetString(PyExc_TypeError, "only formed drafts are chained");
        return 0;
    }
    Shape *form = (Shape *)((FormedDraft *)draft)->form;
    if (form->tails == NULL || form->bare == NULL || form->committing == NULL) {
        PyErr_SetString(PyExc_TypeError, "a form is not whole");
        return 0;
    }
    char digests[MOST_TAILS][DIGEST];
    Py_ssize_t count = 0;
    if (!committed(secrets, digests, &count, salts_left, salts, form->tails, seq)
        || !committed(secrets, digests, &count, salts_left, salts, ((FormedDraft *)draft)->given, seq))
        return 0;
    qsort(digests, (size_t)count, DIGEST, by_text); /* the order of names would say something (RFC 9901 §4.2.4.1) */
    long long number = 0;
    if (form->refers) {
        number = PyLong_AsLongLong(((FormedDraft *)draft)->ref);
        if (number == -1 && PyErr_Occurred())
            return 0;
        if (number == BEFORE)
            number = seq - 1;
    }
    return line(lines, count > 0 ? form->committing : form->bare, 6 + form->refers + (count > 0), digests, count, mono_us, prev,
                form->refers, number, seq, name, ts, ts_size);
}

static Buffer lines, secrets;

/* Encode drafts into `lines` and `secrets`, behind the line whose hash is `prev`, and take the salts that this used. */
static int encode(PyObject *const *drafts, Py_ssize_t count, long long seq, char prev[64], long long mono_us, PyObject *name,
                  const char *ts, size_t ts_size, PyObject *salts)
{
    Py_ssize_t had = PyList_GET_SIZE(salts), left = had;
    lines.size = secrets.size = 0;
    if (!grow(&lines, 2048) || !grow(&secrets, 2048))
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!event(&lines, &secrets, drafts[i], seq + i, prev, mono_us, name, ts, ts_size, salts, &left))
            return 0;
    return left == had || PyList_SetSlice(salts, left, had, NULL) == 0;
}

static PyObject *chained(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    (void)self;
    if (argc != 7 || !PyTuple_CheckExact(args[0]) || !PyBytes_CheckExact(args[2]) || PyBytes_GET_SIZE(args[2]) != 64
        || !PyBytes_CheckExact(args[4]) || !PyBytes_CheckExact(args[5]) || !PyList_CheckExact(args[6])) {
        PyErr_SetString(PyExc_TypeError, "chained takes drafts, seq, prev, mono_us, name, ts and beginnings");
        return NULL;
    }
    long long seq = PyLong_AsLongLong(args[1]), mono_us = PyLong_AsLongLong(args[3]);
    if (PyErr_Occurred())
        return NULL;
    char prev[64];
    memcpy(prev, PyBytes_AS_STRING(args[2]), 64);
    if (!encode(&PyTuple_GET_ITEM(args[0], 0), PyTuple_GET_SIZE(args[0]), seq, prev, mono_us, args[4], PyBytes_AS_STRING(args[5]),
                (size_t)PyBytes_GET_SIZE(args[5]), args[6]))
        return NULL;
    return Py_BuildValue("(y#y#y#)", lines.data, (Py_ssize_t)lines.size, secrets.data, (Py_ssize_t)secrets.size, prev, (Py_ssize_t)64);
}

/* -- the open end of a file, and what the log that all share is told of it (linefile.py, redo.py) -------------------------- */

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

/* -- the open end of a chain --------------------------------------------------------------------------------------------------- */

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
    *us = PyLong_AsLongLong(now);
    Py_DECREF(now);
    return !(*us == -1 && PyErr_Occurred());
}

static int chain_init(Chain *self, PyObject *args, PyObject *names)
{
    static char *known[] = {"name", "events", "disclosures", "wall_us", "monotonic_us", "meet", "draw", NULL};
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
    {"chained", (PyCFunction)(void (*)(void))chained, METH_FASTCALL, "Return the lines and disclosures of drafts, and the last line's hash."},
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
