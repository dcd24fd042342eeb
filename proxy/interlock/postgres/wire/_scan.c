/* The loop of rows.py, for installations with a compiler: see there for what it means, and tests/postgres/wire/test_rows.py
 * for the two held against each other. It reads a bytes object and returns a number; it keeps and allocates nothing. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define HEADER 5
#define LEAST 4
#define MOST 0x3FFFFFFF /* frame.COPY_CAP */

static PyObject *skip_rows(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    if (count != 2 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "skip_rows takes bytes and a position");
        return NULL;
    }
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    Py_ssize_t size = PyBytes_GET_SIZE(args[0]);
    Py_ssize_t pos = PyLong_AsSsize_t(args[1]);
    if (pos == -1 && PyErr_Occurred())
        return NULL;
    if (pos < 0) {
        PyErr_SetString(PyExc_ValueError, "a position is not negative");
        return NULL;
    }
    /* Every comparison is of what is left, never of a sum, so that no length can overflow one. */
    while (pos < size && size - pos >= HEADER && data[pos] == 'D') {
        unsigned long length = ((unsigned long)data[pos + 1] << 24) | ((unsigned long)data[pos + 2] << 16)
                             | ((unsigned long)data[pos + 3] << 8) | (unsigned long)data[pos + 4];
        if (length < LEAST || length > MOST || (Py_ssize_t)length >= size - pos)
            break;
        pos += 1 + (Py_ssize_t)length;
    }
    return PyLong_FromSsize_t(pos);
}

static PyMethodDef methods[] = {
    {"skip_rows", (PyCFunction)(void (*)(void))skip_rows, METH_FASTCALL, "Return the place behind the whole rows at a place."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_scan", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModule_Create(&module);
}
