#include "arguments.hpp"

#include <array>
#include <string>
#include <string_view>

namespace smlora::python {
namespace {

struct Known {
    std::array<PyObject*, SMLORA_E8M0 + 1> dtypes{};
    PyObject* error = nullptr;
};

Known known;

/// Interned once: looking an attribute up by a string that Python knows costs a pointer's comparison.
PyObject* name_of(const char* text) {
    PyObject* const name = PyUnicode_InternFromString(text);
    if (name == nullptr) throw PythonError{};
    return name;
}

smlora_dtype dtype_of(PyObject* tensor, const char* argument, Types types) {
    static PyObject* const attribute = name_of("dtype");
    const Reference dtype(PyObject_GetAttr(tensor, attribute));
    const std::size_t count = types == Types::packed ? known.dtypes.size() : SMLORA_INT64 + 1;
    for (std::size_t i = 0; i < count; ++i) {
        if (known.dtypes[i] == dtype.get()) return static_cast<smlora_dtype>(i);
    }
    PyErr_Format(
        PyExc_ValueError, "%s: expected a tensor of bfloat16, float16, float32, float64, int32%s, got %S", argument,
        types == Types::packed ? ", int64, uint8, int8, float8_e4m3fn or float8_e8m0fnu" : " or int64", dtype.get());
    throw PythonError{};
}

/// Copies a tuple of integers.
void read_tuple(PyObject* tuple, int ndim, int64_t* values) {
    for (int i = 0; i < ndim; ++i) {
        PyObject* const item = PyTuple_GetItem(tuple, i);
        if (item == nullptr) throw PythonError{};
        values[i] = PyLong_AsLongLong(item);
        if (values[i] == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    }
}

PyObject* exception_of(smlora_status status) {
    switch (status) {
        case SMLORA_INVALID_ARGUMENT:
            return PyExc_ValueError;
        case SMLORA_UNSUPPORTED:
            return PyExc_NotImplementedError;
        case SMLORA_OUT_OF_MEMORY:
            return PyExc_MemoryError;
        default:
            return known.error == nullptr ? PyExc_RuntimeError : known.error;
    }
}

}  // namespace

void set_known_types(PyObject* dtypes, PyObject* error) {
    for (std::size_t i = 0; i < known.dtypes.size(); ++i) {
        PyObject* const dtype = PyList_GetItem(dtypes, static_cast<Py_ssize_t>(i));
        if (dtype == nullptr) throw PythonError{};
        Py_INCREF(dtype);
        known.dtypes[i] = dtype;
    }
    Py_INCREF(error);
    known.error = error;
}

void* data_of(PyObject* tensor) {
    static PyObject* const data_ptr = name_of("data_ptr");
    const Reference address(PyObject_CallMethodObjArgs(tensor, data_ptr, nullptr));
    void* const data = PyLong_AsVoidPtr(address.get());
    if (data == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
    return data;
}

smlora_tensor to_tensor(PyObject* object, const char* argument, Types types) {
    smlora_tensor view{};
    if (object == Py_None) return view;
    static PyObject* const shape = name_of("shape");
    static PyObject* const stride = name_of("stride");
    view.dtype = dtype_of(object, argument, types);
    const Reference sizes(PyObject_GetAttr(object, shape));
    const Py_ssize_t ndim = PyTuple_Size(sizes.get());
    if (ndim < 0) throw PythonError{};
    if (ndim > SMLORA_MAX_NDIM) {
        PyErr_Format(PyExc_ValueError, "%s: expected a tensor of at most %d dimensions, got %zd", argument,
                     SMLORA_MAX_NDIM, ndim);
        throw PythonError{};
    }
    view.ndim = static_cast<int32_t>(ndim);
    read_tuple(sizes.get(), view.ndim, view.shape);
    const Reference steps(PyObject_CallMethodObjArgs(object, stride, nullptr));
    read_tuple(steps.get(), view.ndim, view.strides);
    view.data = data_of(object);
    return view;
}

void Device::check(PyObject* tensor, const char* argument) {
    static PyObject* const get_device = name_of("get_device");
    const Reference index(PyObject_CallMethodObjArgs(tensor, get_device, nullptr));
    const std::int64_t device = integer_of(index.get());
    if (first_ == nullptr) {
        first_ = tensor;
        first_argument_ = argument;
        device_ = device;
    }
    if (device == device_) return;
    static PyObject* const attribute = name_of("device");
    const Reference here(PyObject_GetAttr(first_, attribute));
    const Reference there(PyObject_GetAttr(tensor, attribute));
    PyErr_Format(PyExc_ValueError, "%s: expected a tensor on %S, where %s is, got one on %S", argument, here.get(),
                 first_argument_, there.get());
    throw PythonError{};
}

PyObject* Arguments::next() {
    if (count_ == 0) {
        PyErr_SetString(PyExc_TypeError, "smlora._native: too few arguments");
        throw PythonError{};
    }
    --count_;
    return *objects_++;
}

std::int64_t integer_of(PyObject* object) {
    const std::int64_t value = PyLong_AsLongLong(object);
    if (value == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    return value;
}

std::int64_t Arguments::integer() { return integer_of(next()); }

void Arguments::end() const {
    if (count_ == 0) return;
    PyErr_Format(PyExc_TypeError, "smlora._native: %zd arguments too many", count_);
    throw PythonError{};
}

float number_of(PyObject* object) {
    const double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred() != nullptr) throw PythonError{};
    return static_cast<float>(value);
}

bool flag_of(PyObject* object) {
    const int value = PyObject_IsTrue(object);
    if (value < 0) throw PythonError{};
    return value != 0;
}

std::vector<PyObject*> items_of(PyObject* list) {
    const Py_ssize_t count = PyList_Size(list);
    if (count < 0) throw PythonError{};
    std::vector<PyObject*> items;
    for (Py_ssize_t i = 0; i < count; ++i) items.push_back(PyList_GetItem(list, i));
    return items;
}

std::string string_of(PyObject* object) {
    Py_ssize_t length = 0;
    const char* text = PyUnicode_AsUTF8AndSize(object, &length);
    if (text == nullptr) throw PythonError{};
    return {text, static_cast<std::size_t>(length)};
}

std::vector<std::int64_t> integers_of(PyObject* list) {
    std::vector<std::int64_t> integers;
    for (PyObject* const item : items_of(list)) integers.push_back(integer_of(item));
    return integers;
}

std::vector<std::string> strings_of(PyObject* list) {
    std::vector<std::string> strings;
    for (PyObject* const item : items_of(list)) strings.push_back(string_of(item));
    return strings;
}

void check(smlora_status status) {
    if (status == SMLORA_OK) return;
    PyObject* const type = exception_of(status);
    const Reference error(PyObject_CallFunction(type, "s", smlora_last_error()));
    if (type == known.error) {
        const Reference code(PyUnicode_FromString(smlora_status_name(status)));
        if (PyObject_SetAttrString(error.get(), "code", code.get()) != 0) throw PythonError{};
    }
    PyErr_SetObject(type, error.get());
    throw PythonError{};
}

}  // namespace smlora::python
