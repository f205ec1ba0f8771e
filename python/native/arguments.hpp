// Positional arguments of a Python call as what the C interface takes, and its errors as Python exceptions.
#pragma once

#include <Python.h>

#include <smlora/smlora.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace smlora::python {

/// A Python exception is set: unwinds to guarded().
struct PythonError {};

/// Owns a reference to an object. Throws PythonError for null, which is how Python says that an exception is set.
class Reference {
 public:
    Reference() = default;
    explicit Reference(PyObject* object) : object_(object) {
        if (object == nullptr) throw PythonError{};
    }
    ~Reference() { Py_XDECREF(object_); }
    Reference(const Reference&) = delete;
    Reference& operator=(const Reference&) = delete;
    Reference& operator=(Reference&& other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }

    [[nodiscard]] PyObject* get() const { return object_; }

 private:
    PyObject* object_ = nullptr;
};

/// Types that a tensor may have.
enum class Types {
    numbers,  ///< those of values and indices
    packed    ///< those of quantised weights as well
};

/// A torch tensor of up to four dimensions as a view; None as one that is not given. Throws PythonError with a
/// ValueError that begins with the argument's name.
[[nodiscard]] smlora_tensor to_tensor(PyObject* object, const char* argument, Types types = Types::numbers);

/// Where the tensors of a call are: all on the device of the first.
class Device {
 public:
    /// Throws PythonError with a ValueError that names the argument and both devices.
    void check(PyObject* tensor, const char* argument);

 private:
    PyObject* first_ = nullptr;  // borrowed
    const char* first_argument_ = nullptr;
    std::int64_t device_ = 0;  // the GPU's ordinal, -1 for the CPU
};

/// The address of a torch tensor's first element. Throws PythonError.
[[nodiscard]] void* data_of(PyObject* tensor);

/// Throws PythonError.
[[nodiscard]] std::int64_t integer_of(PyObject* object);

/// Throws PythonError.
[[nodiscard]] float number_of(PyObject* object);

/// Throws PythonError.
[[nodiscard]] bool flag_of(PyObject* object);

// Of a list. Each throws PythonError.
[[nodiscard]] std::vector<PyObject*> items_of(PyObject* list);  ///< borrowed
[[nodiscard]] std::vector<std::int64_t> integers_of(PyObject* list);
[[nodiscard]] std::vector<std::string> strings_of(PyObject* list);

/// Throws PythonError.
[[nodiscard]] std::string string_of(PyObject* object);

/// Walks over the arguments of a call, in order. Throws PythonError with a TypeError when there are too few.
class Arguments {
 public:
    Arguments(PyObject* const* objects, Py_ssize_t count) : objects_(objects), count_(count) {}

    /// A borrowed reference.
    PyObject* next();
    std::int64_t integer();
    /// Throws PythonError with a TypeError when any are left.
    void end() const;

 private:
    PyObject* const* objects_;
    Py_ssize_t count_;
};

/// dtypes: a list of torch's dtypes in the order of smlora_dtype, None for those that torch lacks. error: what check()
/// raises for a status that Python has no exception of its own for.
void set_known_types(PyObject* dtypes, PyObject* error);

/// Throws PythonError with the library's message: ValueError, NotImplementedError, MemoryError or the class that
/// set_known_types() named.
void check(smlora_status status);

[[nodiscard]] inline PyObject* none() {
    Py_INCREF(Py_None);
    return Py_None;
}

/// Other Python threads run meanwhile.
template <class Body>
auto without_gil(Body&& body) {
    PyThreadState* const state = PyEval_SaveThread();
    auto result = body();
    PyEval_RestoreThread(state);
    return result;
}

/// Runs `body`; null if it throws PythonError, as Python wants it.
template <class Body>
PyObject* guarded(Body&& body) noexcept {
    try {
        return body();
    } catch (const PythonError&) {
        return nullptr;
    } catch (...) {
        PyErr_NoMemory();
        return nullptr;
    }
}

}  // namespace smlora::python
