// The operators of the library on torch tensors.
#pragma once

#include "arguments.hpp"

namespace smlora::python {

/// (codes, weight_parts: list, weight_format: list) -> None, see signatures.def. Throws PythonError with a ValueError.
PyObject* check_weight(Arguments arguments);

// Each operator and its arguments by name, in the order of signatures.def.
#define SMLORA_ARGUMENT(type, name) PyObject* name;
#define SMLORA_OUTPUT(name) PyObject* name;
#define SMLORA_OPERATOR(operator_name, arguments, outputs) \
    struct operator_name##_arguments {                     \
        PyObject* engine;                                  \
        PyObject* stream;                                  \
        PyObject* allocate;                                \
        arguments outputs                                  \
    };                                                     \
    PyObject* operator_name(const operator_name##_arguments&);
#include "signatures.def"
#undef SMLORA_OPERATOR
#undef SMLORA_ARGUMENT
#undef SMLORA_OUTPUT

}  // namespace smlora::python
