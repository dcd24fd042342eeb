/* Cut a text at its literals, for installations with a compiler: see literals.py for what it means and for its plain form, and
 * tests/commands/sql/test_literals.py for the two held against each other. It reads bytes and returns new ones; it keeps nothing. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#define MARK '\x01'
#define MOST_DIGITS 9

/* What joins an integer to what stands beside it. A backslash does so before it only. */
static int joins(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '$' || c == '.' || c == '\''
        || c == '"' || c >= 0x80;
}

static int opens(unsigned char c)
{
    return c != 0 && memchr(" \t\n(,=<>", c, 8) != NULL;
}

/* Return the place behind the literal that begins at a place, or -1. */
static Py_ssize_t behind(const unsigned char *text, Py_ssize_t size, Py_ssize_t at)
{
    Py_ssize_t end = at + 1;
    if (text[at] == '\'') {
        if (at == 0 || !opens(text[at - 1]))
            return -1;
        while (end < size && text[end] >= 0x20 && text[end] < 0x7F && text[end] != '\'' && text[end] != '\\')
            end++;
        if (end >= size || text[end] != '\'' || (end + 1 < size && text[end + 1] == '\''))
            return -1;
        return end + 1;
    }
    if (text[at] < '0' || text[at] > '9' || (at > 0 && (joins(text[at - 1]) || text[at - 1] == '\\')))
        return -1;
    while (end < size && text[end] >= '0' && text[end] <= '9')
        end++;
    if (end - at > (text[at] == '0' ? 1 : MOST_DIGITS) || (end < size && joins(text[end])))
        return -1;
    return end;
}

static PyObject *cut(PyObject *self, PyObject *object)
{
    (void)self;
    if (!PyBytes_CheckExact(object)) {
        PyErr_SetString(PyExc_TypeError, "not bytes");
        return NULL;
    }
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(object);
    Py_ssize_t size = PyBytes_GET_SIZE(object), last = 0, made = 0;
    PyObject *rest = PyBytes_FromStringAndSize(NULL, size), *literals = PyList_New(0), *result = NULL;
    if (rest == NULL || literals == NULL)
        goto end;
    char *to = PyBytes_AS_STRING(rest); /* a literal has as many bytes as what stands for it, or more */
    for (Py_ssize_t at = 0; at < size;) {
        if (text[at] != '\'' && (text[at] < '0' || text[at] > '9')) {
            at++;
            continue;
        }
        Py_ssize_t next = behind(text, size, at);
        if (next < 0) {
            at++;
            continue;
        }
        PyObject *literal = PyBytes_FromStringAndSize((const char *)text + at, next - at);
        if (literal == NULL || PyList_Append(literals, literal) < 0) {
            Py_XDECREF(literal);
            goto end;
        }
        Py_DECREF(literal);
        memcpy(to + made, text + last, (size_t)(at - last));
        made += at - last;
        if (text[at] == '\'')
            to[made++] = '\'';
        to[made++] = MARK;
        last = at = next;
    }
    memcpy(to + made, text + last, (size_t)(size - last));
    made += size - last;
    if (_PyBytes_Resize(&rest, made) == 0) {
        PyObject *found = PyList_AsTuple(literals);
        if (found != NULL)
            result = Py_BuildValue("(ON)", rest, found);
    }
end:
    Py_XDECREF(rest);
    Py_XDECREF(literals);
    return result;
}

static PyMethodDef methods[] = {
    {"cut", cut, METH_O, "Return what stands around the literals of a text, and the literals."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cut", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__cut(void)
{
    return PyModule_Create(&module);
}
