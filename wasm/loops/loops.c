/* How do a tensor's loops run fast where Python is slow?
 *
 * The twin of wasm/trivium/loops.py, for buffers of float32: the same arithmetic in double, in
 * the same order, hence the same bits. Sizes are checked here: callers may pass anything. */

#include <Python.h>
#include <math.h>
#include <string.h>

/* A buffer's numbers; they may lie at any address. */
typedef struct {
    Py_buffer view;
    const char *data;
    Py_ssize_t count;
} Floats;

static int open_floats(PyObject *object, Floats *floats) {
    if (PyObject_GetBuffer(object, &floats->view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) return -1;
    if (floats->view.format == NULL || strcmp(floats->view.format, "f") != 0) {
        PyBuffer_Release(&floats->view);
        PyErr_SetString(PyExc_TypeError, "a buffer of float32 is needed");
        return -1;
    }
    floats->data = floats->view.buf;
    floats->count = floats->view.len / (Py_ssize_t)sizeof(float);
    return 0;
}

static inline float at(const char *data, Py_ssize_t i) {
    float value;
    memcpy(&value, data + i * (Py_ssize_t)sizeof(float), sizeof value);
    return value;
}

static inline void put(char *data, Py_ssize_t i, float value) {
    memcpy(data + i * (Py_ssize_t)sizeof(float), &value, sizeof value);
}

/* Whether `a` ranks below `b`: NaN below all numbers, and of equals the later one. */
static inline int below(const char *data, Py_ssize_t a, Py_ssize_t b) {
    float x = at(data, a), y = at(data, b);
    if (x < y) return 1;
    if (x > y) return 0;
    int gone = isnan(x), other = isnan(y);
    return gone != other ? gone : a > b;
}

/* Let the root sink in a heap whose root is the lowest. */
static void sink(const char *data, Py_ssize_t *heap, Py_ssize_t size) {
    Py_ssize_t root = 0, moved = heap[0];
    for (Py_ssize_t child; (child = 2 * root + 1) < size; root = child) {
        if (child + 1 < size && below(data, heap[child + 1], heap[child])) child++;
        if (below(data, moved, heap[child])) break;
        heap[root] = heap[child];
    }
    heap[root] = moved;
}

static void rise(const char *data, Py_ssize_t *heap, Py_ssize_t child) {
    Py_ssize_t moved = heap[child];
    while (child > 0) {
        Py_ssize_t root = (child - 1) / 2;
        if (below(data, heap[root], moved)) break;
        heap[child] = heap[root];
        child = root;
    }
    heap[child] = moved;
}

static PyObject *ranked(const Floats *floats, Py_ssize_t *heap, Py_ssize_t k) {
    const char *data = floats->data;
    for (Py_ssize_t i = 0; i < k; i++) {
        heap[i] = i;
        rise(data, heap, i);
    }
    for (Py_ssize_t i = k; k > 0 && i < floats->count; i++) {
        if (below(data, heap[0], i)) {
            heap[0] = i;
            sink(data, heap, k);
        }
    }
    PyObject *list = PyList_New(k);
    if (list == NULL) return NULL;
    for (Py_ssize_t left = k; left > 0; left--) {
        Py_ssize_t lowest = heap[0];
        PyObject *pair = Py_BuildValue("(nd)", lowest, (double)at(data, lowest));
        if (pair == NULL || PyList_SetItem(list, left - 1, pair) < 0) {
            Py_DecRef(list);
            return NULL;
        }
        heap[0] = heap[left - 1];
        sink(data, heap, left - 1);
    }
    return list;
}

static PyObject *topk(PyObject *module, PyObject *args) {
    PyObject *values;
    Py_ssize_t k;
    Floats floats;
    (void)module;
    if (!PyArg_ParseTuple(args, "On:topk", &values, &k)) return NULL;
    if (open_floats(values, &floats) < 0) return NULL;
    if (k < 0) k = 0;
    if (k > floats.count) k = floats.count;
    Py_ssize_t few[32], *heap = few;
    if (k > 32) heap = PyMem_Calloc((size_t)k, sizeof *heap);
    PyObject *list = heap == NULL ? PyErr_NoMemory() : ranked(&floats, heap, k);
    if (heap != few) PyMem_Free(heap);
    PyBuffer_Release(&floats.view);
    return list;
}

static void soften(const char *data, char *out, double *powers, Py_ssize_t width) {
    double peak = at(data, 0), total = 0.0;
    for (Py_ssize_t i = 1; i < width; i++) {
        double value = at(data, i);
        if (value > peak) peak = value;
    }
    for (Py_ssize_t i = 0; i < width; i++) total += powers[i] = exp(at(data, i) - peak);
    for (Py_ssize_t i = 0; i < width; i++) put(out, i, (float)(powers[i] / total));
}

static PyObject *softened(const Floats *floats, Py_ssize_t width) {
    if (width < 1 || floats->count % width != 0) {
        return PyErr_Format(
            PyExc_ValueError, "%zd numbers do not make rows of %zd", floats->count, width);
    }
    if (floats->count == 0) return PyBytes_FromStringAndSize(NULL, 0);
    double *powers = PyMem_Calloc((size_t)width, sizeof *powers);
    if (powers == NULL) return PyErr_NoMemory();
    Py_ssize_t size = floats->count * (Py_ssize_t)sizeof(float);
    PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    char *out = made == NULL ? NULL : PyBytes_AsString(made);
    if (out != NULL) {
        for (Py_ssize_t start = 0; start < size; start += width * (Py_ssize_t)sizeof(float)) {
            soften(floats->data + start, out + start, powers, width);
        }
    }
    PyMem_Free(powers);
    return made;
}

static PyObject *softmax(PyObject *module, PyObject *args) {
    PyObject *values;
    Py_ssize_t width;
    Floats floats;
    (void)module;
    if (!PyArg_ParseTuple(args, "On:softmax", &values, &width)) return NULL;
    if (open_floats(values, &floats) < 0) return NULL;
    PyObject *made = softened(&floats, width);
    PyBuffer_Release(&floats.view);
    return made;
}

static PyObject *averaged(const Floats *floats, const char *mask, Py_ssize_t rows) {
    if (rows < 1 || floats->count % rows != 0) {
        return PyErr_Format(
            PyExc_ValueError, "%zd numbers do not make %zd rows", floats->count, rows);
    }
    Py_ssize_t width = floats->count / rows, kept = 0;
    double *sums = PyMem_Calloc((size_t)width, sizeof *sums);
    if (sums == NULL) return PyErr_NoMemory();
    for (Py_ssize_t row = 0; row < rows; row++) {
        if (!mask[row]) continue;
        const char *data = floats->data + row * width * (Py_ssize_t)sizeof(float);
        for (Py_ssize_t i = 0; i < width; i++) sums[i] += at(data, i);
        kept++;
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, width * (Py_ssize_t)sizeof(float));
    char *out = made == NULL ? NULL : PyBytes_AsString(made);
    if (out != NULL) {
        double by = kept > 0 ? (double)kept : 1.0;
        for (Py_ssize_t i = 0; i < width; i++) put(out, i, (float)(sums[i] / by));
    }
    PyMem_Free(sums);
    return made;
}

static PyObject *mean(PyObject *module, PyObject *args) {
    PyObject *values, *kept;
    char *mask;
    Py_ssize_t rows;
    Floats floats;
    (void)module;
    if (!PyArg_ParseTuple(args, "OS:mean", &values, &kept)) return NULL;
    if (PyBytes_AsStringAndSize(kept, &mask, &rows) < 0) return NULL;
    if (open_floats(values, &floats) < 0) return NULL;
    PyObject *made = averaged(&floats, mask, rows);
    PyBuffer_Release(&floats.view);
    return made;
}

static PyMethodDef functions[] = {
    {"topk", topk, METH_VARARGS, "topk(values, k)"},
    {"softmax", softmax, METH_VARARGS, "softmax(values, width)"},
    {"mean", mean, METH_VARARGS, "mean(values, mask)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

/* Without PyModuleDef_HEAD_INIT, whose first refcount is another in each Python's headers:
 * PyModuleDef_Init sets it, and the same bytes come out with all of them. */
static PyModuleDef definition = {
    .m_name = "trivium_loops",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_trivium_loops(void) { return PyModuleDef_Init(&definition); }
