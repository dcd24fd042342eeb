/* The loop of shown.py, for installations with a compiler: see there for what it means and for its plain form, and
 * tests/evidence/test_terminal.py for the two held against each other. Keeps nothing between calls. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

static const char hex[] = "0123456789abcdef";

/* Characters that one is shown by: 1 is itself. */
static int width(Py_UCS4 c, uint32_t kept)
{
    if (c < 0x20)
        return kept >> c & 1 ? 1 : 2;
    if (c < 0x7f)
        return 1;
    if (c == 0x7f)
        return 2;
    if (Py_UNICODE_ISPRINTABLE(c))
        return 1;
    int digits = 2; /* these begin at 80 */
    while (digits < 6 && c >> 4 * digits)
        digits++;
    return digits + 4;
}

static PyObject *shown(PyObject *self, PyObject *const *args, Py_ssize_t argc)
{
    (void)self;
    if (argc != 2 || !PyUnicode_Check(args[0]) || !PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "shown takes a text and the set of control characters that stay");
        return NULL;
    }
    unsigned long kept = PyLong_AsUnsignedLong(args[1]);
    if (PyErr_Occurred() || PyUnicode_READY(args[0]) < 0)
        return NULL;
    PyObject *text = args[0];
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    Py_ssize_t size = PyUnicode_GET_LENGTH(text), wanted = 0;
    Py_UCS4 highest = 0x7f;
    for (Py_ssize_t i = 0; i < size; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        int w = width(c, (uint32_t)kept);
        if (wanted > PY_SSIZE_T_MAX - w)
            return PyErr_NoMemory();
        wanted += w;
        if (w == 1 && c > highest)
            highest = c;
    }
    if (wanted == size)
        return Py_NewRef(text);
    PyObject *result = PyUnicode_New(wanted, highest);
    if (result == NULL)
        return NULL;
    int into = PyUnicode_KIND(result);
    void *out = PyUnicode_DATA(result);
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        Py_UCS4 c = PyUnicode_READ(kind, data, i);
        int w = width(c, (uint32_t)kept);
        if (w == 1) {
            PyUnicode_WRITE(into, out, at++, c);
        } else if (w == 2) {
            PyUnicode_WRITE(into, out, at++, '^');
            PyUnicode_WRITE(into, out, at++, c ^ 0x40);
        } else {
            PyUnicode_WRITE(into, out, at++, '\\');
            PyUnicode_WRITE(into, out, at++, 'u');
            PyUnicode_WRITE(into, out, at++, '{');
            for (int digit = w - 5; digit >= 0; digit--)
                PyUnicode_WRITE(into, out, at++, (Py_UCS4)hex[c >> 4 * digit & 15]);
            PyUnicode_WRITE(into, out, at++, '}');
        }
    }
    return result;
}

static PyMethodDef methods[] = {
    {"shown", (PyCFunction)(void (*)(void))shown, METH_FASTCALL, "Return a text with every character shown that is not printable."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_shown", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__shown(void)
{
    return PyModule_Create(&module);
}
