/* The inner part of Transcript.append, for installations with a compiler and OpenSSL 3: see chain.py for what it means and for
 * its plain form, and tests/evidence/test_chain.py for the two held against each other. Hashes are OpenSSL's, by its provider
 * interface (so those of a FIPS provider where one is configured). Nothing is kept between calls but the digest and its context. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

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

static EVP_MD *sha256;
static EVP_MD_CTX *context;
static PyObject *name_form, *name_given, *name_ref, *name_tails, *name_refers, *name_pieces, *name_committing;

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
    char text[24];
    int size = snprintf(text, sizeof text, "%lld", value);
    return put(b, text, (size_t)size);
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
                char prev[64], int refers, long long ref, long long seq, PyObject *name, PyObject *ts)
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
    if (!put_number(lines, seq) || !PIECE || !put_bytes(lines, name) || !PIECE || !put_bytes(lines, ts) || !PIECE)
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
                 PyObject *ts, PyObject *salts, Py_ssize_t *salts_left)
{
    int done = 0;
    PyObject *tails = NULL, *given = NULL, *refers = NULL, *ref = NULL, *pieces = NULL;
    PyObject *form = PyObject_GetAttr(draft, name_form);
    if (form == NULL || (tails = PyObject_GetAttr(form, name_tails)) == NULL || (given = PyObject_GetAttr(draft, name_given)) == NULL
        || (refers = PyObject_GetAttr(form, name_refers)) == NULL || (ref = PyObject_GetAttr(draft, name_ref)) == NULL)
        goto end;
    char digests[MOST_TAILS][DIGEST];
    Py_ssize_t count = 0;
    if (!committed(secrets, digests, &count, salts_left, salts, tails, seq)
        || !committed(secrets, digests, &count, salts_left, salts, given, seq))
        goto end;
    qsort(digests, (size_t)count, DIGEST, by_text); /* the order of names would say something (RFC 9901 §4.2.4.1) */
    long long number = 0;
    int refering = refers == Py_True;
    if (refering) {
        number = PyLong_AsLongLong(ref);
        if (number == -1 && PyErr_Occurred())
            goto end;
        if (number == BEFORE)
            number = seq - 1;
    }
    pieces = PyObject_GetAttr(form, count > 0 ? name_committing : name_pieces);
    if (pieces == NULL)
        goto end;
    done = line(lines, pieces, 6 + refering + (count > 0), digests, count, mono_us, prev, refering, number, seq, name, ts);
end:
    Py_XDECREF(form);
    Py_XDECREF(tails);
    Py_XDECREF(given);
    Py_XDECREF(refers);
    Py_XDECREF(ref);
    Py_XDECREF(pieces);
    return done;
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
    PyObject *salts = args[6], *result = NULL;
    Py_ssize_t had = PyList_GET_SIZE(salts), left = had;
    Buffer lines = {NULL, 0, 0}, secrets = {NULL, 0, 0};
    if (!grow(&lines, 2048) || !grow(&secrets, 2048))
        goto end;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args[0]); i++)
        if (!event(&lines, &secrets, PyTuple_GET_ITEM(args[0], i), seq + i, prev, mono_us, args[4], args[5], salts, &left))
            goto end;
    if (PyList_GET_SIZE(salts) != had) { /* no code of others runs in here; a salt must never be used twice */
        PyErr_SetString(PyExc_RuntimeError, "the salts were taken by somebody else");
        goto end;
    }
    if (left < had && PyList_SetSlice(salts, left, had, NULL) < 0)
        goto end;
    result = Py_BuildValue("(y#y#y#)", lines.data, (Py_ssize_t)lines.size, secrets.data, (Py_ssize_t)secrets.size, prev, (Py_ssize_t)64);
end:
    PyMem_Free(lines.data);
    PyMem_Free(secrets.data);
    return result;
}

static PyMethodDef methods[] = {
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
    name_form = PyUnicode_InternFromString("form");
    name_given = PyUnicode_InternFromString("given");
    name_ref = PyUnicode_InternFromString("ref");
    name_tails = PyUnicode_InternFromString("tails");
    name_refers = PyUnicode_InternFromString("refers");
    name_pieces = PyUnicode_InternFromString("bare");
    name_committing = PyUnicode_InternFromString("committing");
    if (name_form == NULL || name_given == NULL || name_ref == NULL || name_tails == NULL || name_refers == NULL
        || name_pieces == NULL || name_committing == NULL)
        return NULL;
    return PyModule_Create(&module);
}
