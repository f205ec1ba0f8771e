// smlora._native: the operations of smlora.h on torch tensors. It needs no header of torch: a tensor is asked for its
// data_ptr(), dtype, shape and stride() through Python, so that one wheel serves every version of torch, and the
// limited C API of Python makes it serve every version of Python as well. Everything that costs microseconds is here;
// what a call means is in the Python files.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arguments.hpp"
#include "engine.hpp"
#include "operators.hpp"

#include <smlora/smlora.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace smlora::python {
namespace {

/// An operator for torch, and as a message describes it.
struct Signature {
    const char* name;
    const char* arguments;  // "Tensor x, int top_k, "
    const char* outputs;    // "y, xa, "
};

constexpr Signature signatures[] = {
#define SMLORA_ARGUMENT(type, name) #type " " #name ", "
#define SMLORA_OUTPUT(name) #name ", "
#define SMLORA_OPERATOR(operator_name, arguments, outputs) {#operator_name, arguments, outputs},
#include "signatures.def"
#undef SMLORA_OPERATOR
#undef SMLORA_ARGUMENT
#undef SMLORA_OUTPUT
};

/// A list of signatures.def without the comma at its end.
std::string without_comma(std::string list) {
    list.resize(list.size() - 2);
    return list;
}

/// padded_rank(R: int) -> int
PyObject* padded_rank(Arguments arguments) {
    const std::int64_t R = arguments.integer();
    arguments.end();
    return PyLong_FromLongLong(smlora_padded_rank(R));
}

/// set_torch(dtypes: list, error: type): torch's dtypes in the order of smlora_dtype, None for those that it lacks, and
/// the class of errors that are neither of a value nor of memory.
PyObject* set_torch(Arguments arguments) {
    PyObject* const dtypes = arguments.next();
    PyObject* const error = arguments.next();
    arguments.end();
    set_known_types(dtypes, error);
    return none();
}

template <PyObject* (*function)(Arguments)>
PyObject* entry(PyObject*, PyObject* const* arguments, Py_ssize_t count) noexcept {
    return guarded([&] { return function(Arguments(arguments, count)); });
}

/// Of an operator: `Operator` is a struct of signatures.def, that is, an array of pointers with names.
template <class Operator, PyObject* (*function)(const Operator&), std::size_t index>
PyObject* operator_entry(PyObject*, PyObject* const* arguments, Py_ssize_t count) noexcept {
    return guarded([&]() -> PyObject* {
        constexpr Py_ssize_t expected = sizeof(Operator) / sizeof(PyObject*);
        if (count != expected) {
            const Signature& signature = signatures[index];
            const std::string names = without_comma(std::string(signature.arguments) + signature.outputs);
            PyErr_Format(PyExc_TypeError,
                         "smlora._native.%s: expected %zd arguments (engine, stream, allocate, %s), got %zd",
                         signature.name, expected, names.c_str(), count);
            return nullptr;
        }
        Operator named;
        std::memcpy(&named, arguments, sizeof named);
        return function(named);
    });
}

using Entry = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t) noexcept;

PyMethodDef method(const char* name, Entry function) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, nullptr};
}

enum : std::size_t {
#define SMLORA_OPERATOR(operator_name, arguments, outputs) index_of_##operator_name,
#include "signatures.def"
#undef SMLORA_OPERATOR
};

PyMethodDef methods[] = {method("engine", &entry<engine>),
                         method("set_nvrtc_folders", &entry<set_nvrtc_folders>),
                         method("system_info", &entry<system_info>),
                         method("cache_stats", &entry<cache_stats>),
                         method("count_use", &entry<count_use>),
                         method("check_problem", &entry<check_problem>),
                         method("prewarm", &entry<prewarm>),
                         method("tune", &entry<tune>),
                         method("set_torch", &entry<set_torch>),
                         method("padded_rank", &entry<padded_rank>),
                         method("check_weight", &entry<check_weight>),
#define SMLORA_OPERATOR(operator_name, arguments, outputs) \
    method(#operator_name, &operator_entry<operator_name##_arguments, operator_name, index_of_##operator_name>),
#include "signatures.def"
#undef SMLORA_OPERATOR
                         {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "smlora._native", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

/// {name: (arguments, outputs)} of every operator, as torch's schemas write them: "Tensor x, int top_k" and "y, xa".
PyObject* schemas() {
    PyObject* const result = PyDict_New();
    for (const Signature& signature : signatures) {
        PyObject* const lists =
            Py_BuildValue("(ss)", without_comma(signature.arguments).c_str(), without_comma(signature.outputs).c_str());
        if (lists == nullptr || PyDict_SetItemString(result, signature.name, lists) != 0) return nullptr;
        Py_DECREF(lists);
    }
    return result;
}

/// The names of an enumeration, in the order of its values.
PyObject* names_of(const char* (*name)(std::int32_t)) {
    PyObject* const names = PyList_New(0);
    for (std::int32_t value = 0; name(value) != nullptr; ++value) {
        PyObject* const text = PyUnicode_FromString(name(value));
        if (text == nullptr || PyList_Append(names, text) != 0) return nullptr;
        Py_DECREF(text);
    }
    return names;
}

/// Adds what the package reads instead of repeating it; false with an exception set.
bool add_constants(PyObject* created) {
    const auto add = [created](const char* name, PyObject* value) {
        return value != nullptr && PyModule_AddObject(created, name, value) == 0;
    };
    return add("version", PyUnicode_FromString(smlora_version())) && add("schemas", schemas()) &&
           add("row_orders", names_of(smlora_row_order_name)) &&
           add("weight_layouts", names_of(smlora_weight_layout_name)) &&
           add("encodings", names_of(smlora_encoding_name)) && add("activations", names_of(smlora_activation_name)) &&
           add("tune_skews", names_of(smlora_tune_skew_name)) &&
           add("max_experts", PyLong_FromLong(SMLORA_MAX_EXPERTS)) &&
           add("max_rank", PyLong_FromLong(SMLORA_MAX_RANK)) && add("max_top_k", PyLong_FromLong(SMLORA_MAX_TOP_K));
}

}  // namespace
}  // namespace smlora::python

PyMODINIT_FUNC PyInit__native() {
    PyObject* created = PyModule_Create(&smlora::python::module);
    if (created != nullptr && !smlora::python::add_constants(created)) {
        Py_DECREF(created);
        return nullptr;
    }
    return created;
}
