/* The inner loops of the short way, for installations with a compiler: see rows.py, stretch.py and given.py for what they mean and
 * for their plain forms, and tests/postgres/wire for the two held against each other. They read bytes and return values; nothing is
 * kept. Every comparison is of what is left, never of a sum, so that no length can overflow one. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define HEADER 5
#define LEAST 4
#define COPY_CAP 0x3FFFFFFF          /* frame.py has these */
#define SERVER_CAP (16 * 1024 * 1024)
#define TEXT_CAP (1024 * 1024)
#define BIND_CAP (64 * 1024 * 1024)
#define MAX_NAME 1024                /* requests.MAX_NAME */
#define MAX_SHOWN 4096               /* values.MAX_SHOWN */

typedef struct {
    const unsigned char *data;
    Py_ssize_t size;
} Read;

static unsigned long number(const unsigned char *at)
{
    return ((unsigned long)at[0] << 24) | ((unsigned long)at[1] << 16) | ((unsigned long)at[2] << 8) | (unsigned long)at[3];
}

static unsigned long count(const unsigned char *at)
{
    return ((unsigned long)at[0] << 8) | (unsigned long)at[1];
}

static int bytes_of(PyObject *object, Read *read)
{
    if (!PyBytes_CheckExact(object)) {
        PyErr_SetString(PyExc_TypeError, "not bytes");
        return 0;
    }
    read->data = (const unsigned char *)PyBytes_AS_STRING(object);
    read->size = PyBytes_GET_SIZE(object);
    return 1;
}

/* -- rows.py --------------------------------------------------------------------------------------------------------------- */

static Py_ssize_t behind_rows(Read read, Py_ssize_t pos)
{
    while (pos < read.size && read.size - pos >= HEADER && read.data[pos] == 'D') {
        unsigned long length = number(read.data + pos + 1);
        if (length < LEAST || length > COPY_CAP || (Py_ssize_t)length >= read.size - pos)
            break;
        pos += 1 + (Py_ssize_t)length;
    }
    return pos;
}

static PyObject *skip_rows(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    (void)self;
    Read read;
    if (argc != 2) {
        PyErr_SetString(PyExc_TypeError, "skip_rows takes bytes and a position");
        return NULL;
    }
    if (!bytes_of(args[0], &read))
        return NULL;
    Py_ssize_t pos = PyLong_AsSsize_t(args[1]);
    if (pos == -1 && PyErr_Occurred())
        return NULL;
    if (pos < 0) {
        PyErr_SetString(PyExc_ValueError, "a position is not negative");
        return NULL;
    }
    return PyLong_FromSsize_t(behind_rows(read, pos));
}

/* -- stretch.py, what a client asks ------------------------------------------------------------------------------------------ */

static const unsigned char RUN[] = {'E', 0, 0, 0, 9, 0, 0, 0, 0, 0, 'S', 0, 0, 0, 4};
static const unsigned char DESCRIBE[] = {'D', 0, 0, 0, 6, 'P', 0};

/* Return the place behind the format codes at a place, or -1. `codes` becomes their number. */
static Py_ssize_t behind_formats(Read read, Py_ssize_t pos, Py_ssize_t *codes)
{
    if (read.size - pos < 2)
        return -1;
    *codes = (Py_ssize_t)count(read.data + pos);
    pos += 2;
    if (read.size - pos < 2 * *codes)
        return -1;
    for (Py_ssize_t i = 0; i < *codes; i++, pos += 2)
        if (count(read.data + pos) > 1)
            return -1;
    return pos;
}

/* Return the place behind the values at a place, or -1. */
static Py_ssize_t behind_values(Read read, Py_ssize_t pos, Py_ssize_t values)
{
    for (; values > 0; values--) {
        if (read.size - pos < 4)
            return -1;
        unsigned long length = number(read.data + pos);
        pos += 4;
        if (length == 0xFFFFFFFF)
            continue;
        if (length > 0x7FFFFFFF || (Py_ssize_t)length > read.size - pos)
            return -1;
        pos += (Py_ssize_t)length;
    }
    return pos;
}

static PyObject *asked(PyObject *self, PyObject *object)
{
    (void)self;
    Read read;
    if (!bytes_of(object, &read))
        return NULL;
    const unsigned char *data = read.data;
    Py_ssize_t start = 0;
    if (read.size < 13)
        Py_RETURN_NONE;
    if (data[0] == 'P') {
        unsigned long length = number(data + 1);
        if (length < 8 || length >= TEXT_CAP || (Py_ssize_t)length > read.size - 6)
            Py_RETURN_NONE;
        start = 1 + (Py_ssize_t)length;
    }
    if (data[start] != 'B')
        Py_RETURN_NONE;
    unsigned long length = number(data + start + 1);
    if (length < 12 || length >= BIND_CAP || (Py_ssize_t)length >= read.size - start - 1)
        Py_RETURN_NONE;
    Py_ssize_t end = start + 1 + (Py_ssize_t)length, left = read.size - end;
    int described = left == sizeof DESCRIBE + sizeof RUN && memcmp(data + end, DESCRIBE, sizeof DESCRIBE) == 0;
    if ((!described && left != sizeof RUN) || memcmp(data + read.size - sizeof RUN, RUN, sizeof RUN) != 0)
        Py_RETURN_NONE;

    Read bind = {data, end};
    Py_ssize_t name = start + HEADER + 1, codes, results;
    if (data[start + HEADER] != 0) /* a portal with a name */
        Py_RETURN_NONE;
    const unsigned char *nul = memchr(data + name, 0, (size_t)(end - name));
    if (nul == NULL || nul - (data + name) > MAX_NAME)
        Py_RETURN_NONE;
    Py_ssize_t at = nul + 1 - data, pos = behind_formats(bind, at, &codes);
    if (pos < 0 || end - pos < 2)
        Py_RETURN_NONE;
    Py_ssize_t values = (Py_ssize_t)count(data + pos);
    if (codes > 1 && codes != values)
        Py_RETURN_NONE;
    pos = behind_values(bind, pos + 2, values);
    if (pos < 0 || behind_formats(bind, pos, &results) != end)
        Py_RETURN_NONE;

    PyObject *statement = PyUnicode_DecodeUTF8((const char *)data + name, nul - (data + name), NULL);
    if (statement == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(y#NOn)", (const char *)data, start, statement, described ? Py_True : Py_False, at);
}

static PyObject *query(PyObject *self, PyObject *object)
{
    (void)self;
    Read read;
    if (!bytes_of(object, &read))
        return NULL;
    if (read.size < 6 || read.size > TEXT_CAP || read.data[0] != 'Q' || number(read.data + 1) != (unsigned long)read.size - 1
        || memchr(read.data + HEADER, 0, (size_t)read.size - HEADER) != read.data + read.size - 1)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)read.data + HEADER, read.size - HEADER - 1);
}

/* -- stretch.py, what a server answers --------------------------------------------------------------------------------------- */

/* Return (command tag, transaction status) when a CommandComplete goes from `pos` to where the ReadyForQuery at the end begins. */
static PyObject *ended(Read read, Py_ssize_t pos)
{
    Py_ssize_t last = read.size - 6;
    const unsigned char *data = read.data;
    if (pos + HEADER >= last || data[pos] != 'C' || number(data + pos + 1) != (unsigned long)(last - pos - 1) || data[last - 1] != 0
        || memcmp(data + last, "Z\0\0\0\5", HEADER) != 0 || memchr("ITE", data[last + HEADER], 3) == NULL)
        Py_RETURN_NONE;
    return Py_BuildValue("(y#s#)", (const char *)data + pos + HEADER, last - 1 - pos - HEADER, (const char *)data + last + HEADER,
                         (Py_ssize_t)1);
}

/* Return the place behind the RowDescription at a place, or -1. */
static Py_ssize_t behind_columns(Read read, Py_ssize_t pos)
{
    if (read.size - pos < HEADER)
        return -1;
    unsigned long length = number(read.data + pos + 1);
    return length < 6 || length > SERVER_CAP || (Py_ssize_t)length >= read.size - pos ? -1 : pos + 1 + (Py_ssize_t)length;
}

static PyObject *queried(PyObject *self, PyObject *object)
{
    (void)self;
    Read read;
    if (!bytes_of(object, &read))
        return NULL;
    Py_ssize_t pos = 0;
    if (read.size < 16)
        Py_RETURN_NONE;
    if (read.data[0] == 'T') {
        if ((pos = behind_columns(read, 0)) < 0)
            Py_RETURN_NONE;
        pos = behind_rows(read, pos);
    }
    return ended(read, pos);
}

static PyObject *answered(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    (void)self;
    Read read;
    if (argc != 3 || !PyBool_Check(args[1]) || !PyBool_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "answered takes bytes and two booleans");
        return NULL;
    }
    if (!bytes_of(args[0], &read))
        return NULL;
    Py_ssize_t pos = args[1] == Py_True ? 10 : 5;
    if (read.size < pos + 16 || memcmp(read.data, args[1] == Py_True ? "1\0\0\0\4" : "2\0\0\0\4", HEADER) != 0
        || memcmp(read.data + pos - HEADER, "2\0\0\0\4", HEADER) != 0)
        Py_RETURN_NONE;
    if (args[2] == Py_True) {
        if (read.data[pos] == 'T')
            pos = behind_columns(read, pos);
        else
            pos = memcmp(read.data + pos, "n\0\0\0\4", HEADER) == 0 ? pos + HEADER : -1;
        if (pos < 0)
            Py_RETURN_NONE;
    }
    return ended(read, behind_rows(read, pos));
}

/* -- given.py ---------------------------------------------------------------------------------------------------------------- */

/* Write to a bytes object that grows; `made` is NULL once there was no room. */
typedef struct {
    PyObject *made;
    Py_ssize_t size;
} Text;

static char *room(Text *text, Py_ssize_t more)
{
    if (text->made == NULL)
        return NULL;
    Py_ssize_t had = PyBytes_GET_SIZE(text->made);
    if (more > PY_SSIZE_T_MAX / 8) {
        PyErr_NoMemory();
        Py_CLEAR(text->made);
        return NULL;
    }
    if (more > had - text->size && _PyBytes_Resize(&text->made, 2 * (text->size + more)) < 0)
        return NULL;
    return PyBytes_AS_STRING(text->made) + text->size;
}

static void put(Text *text, const char *data, Py_ssize_t size)
{
    char *to = room(text, size);
    if (to != NULL) {
        memcpy(to, data, (size_t)size);
        text->size += size;
    }
}

static void put_number(Text *text, unsigned long value)
{
    char digits[20], *at = digits + sizeof digits;
    do
        *--at = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    put(text, at, digits + sizeof digits - at);
}

static void put_base64(Text *text, const unsigned char *in, Py_ssize_t size)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = room(text, size / 3 * 4 + 4);
    if (to == NULL)
        return;
    for (; size >= 3; size -= 3, in += 3) {
        unsigned long v = (unsigned long)in[0] << 16 | (unsigned long)in[1] << 8 | in[2];
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = alphabet[v >> 6 & 63];
        *to++ = alphabet[v & 63];
    }
    if (size > 0) {
        unsigned long v = (unsigned long)in[0] << 16 | (size > 1 ? (unsigned long)in[1] << 8 : 0);
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = size > 1 ? alphabet[v >> 6 & 63] : '=';
        *to++ = '=';
    }
    text->size = to - PyBytes_AS_STRING(text->made);
}

/* Write UTF-8 as a string of RFC 8785. */
static void put_string(Text *text, const char *in, Py_ssize_t size)
{
    static const char hex[] = "0123456789abcdef";
    if (size > PY_SSIZE_T_MAX / 8) {
        PyErr_NoMemory();
        Py_CLEAR(text->made);
        return;
    }
    char *to = room(text, 6 * size + 2);
    if (to == NULL)
        return;
    *to++ = '"';
    for (; size > 0; size--, in++) {
        unsigned char c = (unsigned char)*in;
        if (c >= 0x20 && c != '"' && c != '\\') {
            *to++ = (char)c;
            continue;
        }
        const char *brief = c == '"' ? "\"" : c == '\\' ? "\\" : c == '\n' ? "n" : c == '\r' ? "r" : c == '\t' ? "t" : c == '\b' ? "b"
                          : c == '\f' ? "f" : NULL;
        *to++ = '\\';
        if (brief != NULL)
            *to++ = *brief;
        else {
            memcpy(to, "u00", 3);
            to[3] = hex[c >> 4];
            to[4] = hex[c & 15];
            to += 5;
        }
    }
    *to++ = '"';
    text->size = to - PyBytes_AS_STRING(text->made);
}

static PyObject *finished(Text *text)
{
    if (text->made != NULL)
        _PyBytes_Resize(&text->made, text->size);
    return text->made;
}

static int is_ascii(const unsigned char *data, Py_ssize_t size)
{
    unsigned char all = 0;
    for (Py_ssize_t i = 0; i < size; i++)
        all |= data[i];
    return all < 0x80;
}

/* Write a value as people read it: text that is short and ASCII by itself, all else as `shown` says (values.py). */
static int put_shown(Text *text, const unsigned char *raw, Py_ssize_t size, int code, PyObject *oid, PyObject *shown)
{
    if (code == 0 && size <= MAX_SHOWN && is_ascii(raw, size)) {
        put_string(text, (const char *)raw, size);
        return text->made != NULL;
    }
    PyObject *told = PyObject_CallFunction(shown, "y#iO", (const char *)raw, size, code, oid);
    if (told == NULL)
        return 0;
    if (told == Py_None)
        put(text, "null", 4);
    else {
        Py_ssize_t length;
        const char *utf8 = PyUnicode_AsUTF8AndSize(told, &length);
        if (utf8 == NULL) {
            Py_DECREF(told);
            return 0;
        }
        put_string(text, utf8, length);
    }
    Py_DECREF(told);
    return text->made != NULL;
}

static PyObject *listed(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    (void)self;
    Read read;
    if (argc != 4 || !PyTuple_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "listed takes bytes, a position, a tuple of types and a function");
        return NULL;
    }
    if (!bytes_of(args[0], &read))
        return NULL;
    Py_ssize_t at = PyLong_AsSsize_t(args[1]), codes;
    if (at == -1 && PyErr_Occurred())
        return NULL;
    Py_ssize_t pos = at < 0 || at > read.size ? -1 : behind_formats(read, at, &codes);
    if (pos < 0 || read.size - pos < 2)
        goto broken;
    Py_ssize_t values = (Py_ssize_t)count(read.data + pos);
    pos += 2;
    if ((codes > 1 && codes != values) || behind_values(read, pos, values) < 0)
        goto broken;
    Text text = {PyBytes_FromStringAndSize(NULL, 256), 0};
    PyObject *nothing = PyLong_FromLong(0);
    if (nothing == NULL)
        Py_CLEAR(text.made);
    for (Py_ssize_t i = 0; i < values && text.made != NULL; i++) {
        unsigned long length = number(read.data + pos);
        pos += 4;
        int code = codes == 0 ? 0 : (int)count(read.data + at + 2 + (codes == 1 ? 0 : 2 * i));
        PyObject *oid = i < PyTuple_GET_SIZE(args[2]) ? PyTuple_GET_ITEM(args[2], i) : nothing;
        unsigned long type = PyLong_AsUnsignedLong(oid);
        if (type == (unsigned long)-1 && PyErr_Occurred()) {
            Py_CLEAR(text.made);
            break;
        }
        put(&text, i == 0 ? "[" : ",", 1);
        put(&text, code ? "{\"format\":1,\"raw\":" : "{\"format\":0,\"raw\":", 18);
        if (length == 0xFFFFFFFF)
            put(&text, "null,\"shown\":null", 17);
        else {
            put(&text, "\"", 1);
            put_base64(&text, read.data + pos, (Py_ssize_t)length);
            put(&text, "\",\"shown\":", 10);
            if (text.made != NULL && !put_shown(&text, read.data + pos, (Py_ssize_t)length, code, oid, args[3])) {
                Py_CLEAR(text.made);
                break;
            }
            pos += (Py_ssize_t)length;
        }
        put(&text, ",\"type\":", 8);
        put_number(&text, type);
        put(&text, "}", 1);
    }
    Py_XDECREF(nothing);
    if (values > 0)
        put(&text, "]", 1);
    return finished(&text);
broken:
    PyErr_SetString(PyExc_ValueError, "there are no values of a Bind at this place");
    return NULL;
}

static PyMethodDef methods[] = {
    {"skip_rows", (PyCFunction)(void (*)(void))skip_rows, METH_FASTCALL, "Return the place behind the whole rows at a place."},
    {"asked", asked, METH_O, "Return the stretch that a read of the client is."},
    {"query", query, METH_O, "Return the text when a read of the client is one Query."},
    {"answered", (PyCFunction)(void (*)(void))answered, METH_FASTCALL, "Return the end of a whole answer to a stretch."},
    {"queried", queried, METH_O, "Return the end of a whole answer to a Query."},
    {"listed", (PyCFunction)(void (*)(void))listed, METH_FASTCALL, "Return the values of a Bind as the record has them."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_scan", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&module);
}
