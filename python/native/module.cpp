// smlora._native: the operations of smlora.h on torch tensors. It needs no header of torch: a tensor is asked for its
// data_ptr(), dtype, shape and stride() through Python, so that one wheel serves every version of torch, and the
// limited C API of Python makes it serve every version of Python as well. Everything that costs microseconds is here;
// what a call means is in the Python files.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arguments.hpp"

#include <smlora/smlora.h>

#include <cstring>
#include <string>
#include <vector>

namespace smlora::python {
namespace {

constexpr const char* engine_name = "smlora.engine";

smlora_engine* engine_of(PyObject* capsule) {
    auto* engine = static_cast<smlora_engine*>(PyCapsule_GetPointer(capsule, engine_name));
    if (engine == nullptr) throw PythonError{};
    return engine;
}

void destroy_engine(PyObject* capsule) {
    smlora_engine_destroy(static_cast<smlora_engine*>(PyCapsule_GetPointer(capsule, engine_name)));
}

/// Of a list, borrowed.
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

std::vector<std::string> strings_of(PyObject* list) {
    std::vector<std::string> strings;
    for (PyObject* const item : items_of(list)) strings.push_back(string_of(item));
    return strings;
}

std::vector<const char*> pointers_to(const std::vector<std::string>& strings) {
    std::vector<const char*> pointers;
    for (const std::string& text : strings) pointers.push_back(text.c_str());
    return pointers;
}

/// engine(backend: int, device: int, shipped_layer: str, threads: int) -> capsule
PyObject* engine(Arguments arguments) {
    smlora_engine_options options;
    smlora_engine_options_init(&options, sizeof options);
    options.backend = static_cast<smlora_backend>(arguments.integer());
    options.device = static_cast<int32_t>(arguments.integer());
    const std::string shipped_layer = string_of(arguments.next());
    options.shipped_layer = shipped_layer.c_str();
    options.threads = static_cast<int32_t>(arguments.integer());
    arguments.end();
    smlora_engine* created = nullptr;
    check(smlora_engine_create(&options, &created));
    return PyCapsule_New(created, engine_name, destroy_engine);
}

/// set_nvrtc_folders(folders: list[str]) -> None
PyObject* set_nvrtc_folders(Arguments arguments) {
    const std::vector<std::string> folders = strings_of(arguments.next());
    arguments.end();
    check(smlora_set_nvrtc_folders(pointers_to(folders).data(), folders.size()));
    return none();
}

/// Takes over a string of the library's.
PyObject* text_of(char* text) {
    PyObject* result = PyUnicode_FromString(text);
    smlora_free_string(text);
    return result;
}

/// system_info() -> str, JSON
PyObject* system_info(Arguments arguments) {
    arguments.end();
    char* text = nullptr;
    check(without_gil([&] { return smlora_system_info(&text); }));
    return text_of(text);
}

/// cache_stats(engine) -> str, JSON
PyObject* cache_stats(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    arguments.end();
    char* text = nullptr;
    check(without_gil([&] { return smlora_cache_stats(engine, &text); }));
    return text_of(text);
}

/// Of a list of numbers, in the order of the fields below.
smlora_problem problem_of(PyObject* fields) {
    const std::vector<PyObject*> numbers = items_of(fields);
    Arguments arguments(numbers.data(), static_cast<Py_ssize_t>(numbers.size()));
    smlora_problem problem;
    smlora_problem_init(&problem, sizeof problem);
    problem.E = arguments.integer();
    problem.K = arguments.integer();
    problem.N = arguments.integer();
    problem.R = arguments.integer();
    problem.top_k = arguments.integer();
    problem.dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.adapter_dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.gate_dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.index_dtype = static_cast<smlora_dtype>(arguments.integer());
    problem.weight_layout = static_cast<smlora_weight_layout>(arguments.integer());
    problem.x_rows = static_cast<smlora_row_order>(arguments.integer());
    problem.y_rows = static_cast<smlora_row_order>(arguments.integer());
    problem.bias = static_cast<int32_t>(arguments.integer());
    problem.gates = static_cast<int32_t>(arguments.integer());
    arguments.end();
    return problem;
}

/// prewarm(engine, problems: list[list[int]], tokens: list[int]) -> str, JSON
PyObject* prewarm(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    std::vector<smlora_problem> problems;
    for (PyObject* const fields : items_of(arguments.next())) problems.push_back(problem_of(fields));
    std::vector<std::int64_t> tokens;
    for (PyObject* const number : items_of(arguments.next())) tokens.push_back(integer_of(number));
    arguments.end();
    smlora_prewarm_options options;
    smlora_prewarm_options_init(&options, sizeof options);
    options.problems = problems.data();
    options.problem_count = problems.size();
    options.tokens = tokens.data();
    options.token_count = tokens.size();
    char* report = nullptr;
    check(without_gil([&] { return smlora_prewarm(engine, &options, &report); }));
    return text_of(report);
}

/// Passes what tune() tells to a Python callable, or None, and keeps the exception that it ends with.
class TuneListener {
 public:
    explicit TuneListener(PyObject* progress) : progress_(progress) {}

    /// Called without the GIL, on any thread. Not 0 stops.
    static int32_t hear(const smlora_tune_progress* p, void* self) {
        const PyGILState_STATE state = PyGILState_Ensure();
        const int32_t stop = static_cast<TuneListener*>(self)->hear(*p);
        PyGILState_Release(state);
        return stop;
    }

    /// Throws PythonError with what `progress` raised, be it on another thread.
    void raise() {
        if (type_ == nullptr) return;
        PyErr_Restore(type_, value_, traceback_);
        throw PythonError{};
    }

 private:
    int32_t hear(const smlora_tune_progress& p) {
        // Ctrl-C, on the main thread.
        bool goes_on = PyErr_CheckSignals() == 0;
        if (goes_on && progress_ != Py_None) {
            PyObject* const told = PyObject_CallFunction(
                progress_, "{s:L,s:s,s:s,s:K,s:K,s:s,s:d}", "tokens", static_cast<long long>(p.tokens), "work", p.work,
                "phase", p.phase, "done", static_cast<unsigned long long>(p.done), "total",
                static_cast<unsigned long long>(p.total), "best", p.best, "best_seconds", p.best_seconds);
            goes_on = told != nullptr && told != Py_False;
            Py_XDECREF(told);
        }
        if (PyErr_Occurred() != nullptr) PyErr_Fetch(&type_, &value_, &traceback_);
        return goes_on ? 0 : 1;
    }

    PyObject* progress_;  // borrowed
    PyObject* type_ = nullptr;
    PyObject* value_ = nullptr;
    PyObject* traceback_ = nullptr;
};

/// tune(engine, problem: list[int], tokens: list[int], seconds: float, memory_bytes: int, candidates: int, rounds: int,
///      skew: int, again: int, progress) -> str, JSON
PyObject* tune(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    const smlora_problem problem = problem_of(arguments.next());
    std::vector<std::int64_t> tokens;
    for (PyObject* const number : items_of(arguments.next())) tokens.push_back(integer_of(number));
    smlora_tune_options options;
    smlora_tune_options_init(&options, sizeof options);
    options.tokens = tokens.data();
    options.token_count = tokens.size();
    options.seconds = static_cast<double>(number_of(arguments.next()));
    options.memory_bytes = static_cast<uint64_t>(arguments.integer());
    options.candidates = static_cast<int32_t>(arguments.integer());
    options.rounds = static_cast<int32_t>(arguments.integer());
    options.skew = static_cast<smlora_tune_skew>(arguments.integer());
    options.again = static_cast<int32_t>(arguments.integer());
    TuneListener listener(arguments.next());
    arguments.end();
    options.progress = &TuneListener::hear;
    options.progress_user = &listener;
    char* report = nullptr;
    const smlora_status status = without_gil([&] { return smlora_tune(engine, &problem, &options, &report); });
    listener.raise();
    check(status);
    return text_of(report);
}

// The arguments of each operator by name, in the order of signatures.def.
#define SMLORA_ARGUMENT(type, name) PyObject* name;
#define SMLORA_OUTPUT(name) PyObject* name;
#define SMLORA_OPERATOR(operator_name, arguments, outputs) \
    struct operator_name##_arguments {                     \
        PyObject* engine;                                  \
        PyObject* stream;                                  \
        PyObject* allocate;                                \
        arguments outputs                                  \
    };
#include "signatures.def"
#undef SMLORA_OPERATOR
#undef SMLORA_ARGUMENT

/// An operator for torch, and as a message describes it.
struct Signature {
    const char* name;
    const char* arguments;  // "Tensor x, int top_k, "
    const char* outputs;    // "y, xa, "
};

constexpr Signature signatures[] = {
#undef SMLORA_OUTPUT
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

/// What every operation begins with: engine, stream and a problem of the defaults.
struct Call {
    template <class Arguments>
    explicit Call(const Arguments& a)
        : engine(engine_of(a.engine)),
          stream(reinterpret_cast<smlora_stream>(integer_of(a.stream))),
          allocate(a.allocate) {
        smlora_problem_init(&problem, sizeof problem);
        problem.E = problem.K = problem.N = 1;  // for the operations that have none
    }

    smlora_engine* engine;
    smlora_stream stream;
    PyObject* allocate;  // borrowed
    smlora_problem problem;
    Device device;

    smlora_tensor tensor(PyObject* object, const char* name) {
        if (object != Py_None) device.check(object, name);
        return to_tensor(object, name);
    }

    /// The routing's arrays, and index_dtype.
    template <class Arguments>
    smlora_routing routing(const Arguments& a) {
        smlora_routing result{};
        result.sorted_scattered_idxs = tensor(a.sorted_scattered_idxs, "routing.sorted_scattered_idxs");
        result.expert_offsets = tensor(a.expert_offsets, "routing.expert_offsets");
        problem.index_dtype = result.sorted_scattered_idxs.dtype;
        if (result.expert_offsets.ndim == 1) problem.E = result.expert_offsets.shape[0];
        return result;
    }

    smlora_tensor gates(PyObject* object) {
        const smlora_tensor result = tensor(object, "gates");
        if (result.ndim > 0) problem.gate_dtype = result.dtype;
        return result;
    }

    /// W, a view [E, K, N] in either layout; sets E, K, N and dtype.
    smlora_tensor weight(PyObject* object) {
        smlora_tensor W = tensor(object, "W");
        if (W.ndim != 3) return W;  // the operation says what is wrong
        problem.E = W.shape[0];
        problem.K = W.shape[1];
        problem.N = W.shape[2];
        problem.dtype = W.dtype;
        if (W.strides[2] != 1 && W.strides[1] == 1) {
            problem.weight_layout = SMLORA_WEIGHT_ENK;
            std::swap(W.shape[1], W.shape[2]);
            std::swap(W.strides[1], W.strides[2]);
        }
        return W;
    }

    void adapter(const smlora_tensor& A, int rank_dimension) {
        if (A.ndim != 3) return;
        problem.R = A.shape[rank_dimension];
        problem.adapter_dtype = A.dtype;
    }

    /// xa or yb: [M, padded rank] for torch, [M, R] with that row stride for the library.
    smlora_tensor rank_rows(PyObject* object, const char* name) const {
        smlora_tensor rows = to_tensor(object, name);
        if (rows.ndim == 2 && rows.shape[1] == smlora_padded_rank(problem.R)) rows.shape[1] = problem.R;
        return rows;
    }

    void row_orders(PyObject* x_rows, PyObject* y_rows) {
        problem.x_rows = static_cast<smlora_row_order>(integer_of(x_rows));
        problem.y_rows = static_cast<smlora_row_order>(integer_of(y_rows));
    }

    /// Tokens behind `rows` rows in `order`.
    [[nodiscard]] std::int64_t tokens(const smlora_tensor& rows, smlora_row_order order) const {
        if (rows.ndim != 2 || problem.top_k < 1) return 0;
        return order == SMLORA_ROWS_TOKEN ? rows.shape[0] : rows.shape[0] / problem.top_k;
    }

    /// Without an adapter its type says nothing, but must be one that goes with the others.
    void settle() {
        if (problem.R == 0) problem.adapter_dtype = problem.dtype;
    }

    /// Scratch memory from torch's allocator, which knows the stream. The CPU backend has the heap.
    template <class Query>
    smlora_workspace workspace(Query query, std::int64_t T, Reference& keep) {
        if (allocate == Py_None) return {};
        settle();
        std::size_t bytes = 0;
        check(query(engine, &problem, T, &bytes));
        if (bytes == 0) return {};
        keep = Reference(PyObject_CallFunction(allocate, "n", static_cast<Py_ssize_t>(bytes)));
        return {data_of(keep.get()), bytes};
    }

    template <class Operation, class Args>
    PyObject* run(Operation operation, const Args& args) {
        settle();
        check(without_gil([&] { return operation(engine, stream, &problem, &args); }));
        return none();
    }
};

/// What the package made itself, where it belongs; not given unless `wanted`.
smlora_tensor output(PyObject* object, const char* name, bool wanted = true) {
    return wanted ? to_tensor(object, name) : smlora_tensor{};
}

PyObject* route(const route_arguments& a) {
    Call call(a);
    call.problem.E = integer_of(a.num_experts);
    smlora_route_args args;
    smlora_route_args_init(&args, sizeof args);
    args.top_idx = call.tensor(a.top_idx, "top_idx");
    if (args.top_idx.ndim == 2) call.problem.top_k = args.top_idx.shape[1];
    args.routing = call.routing(a);
    args.routing.sorted_expert_idxs = output(a.sorted_expert_idxs, "routing.sorted_expert_idxs");
    Reference memory;
    args.workspace = call.workspace(smlora_route_workspace, args.top_idx.ndim == 2 ? args.top_idx.shape[0] : 0, memory);
    return call.run(smlora_route, args);
}

PyObject* group_rows(const group_rows_arguments& a) {
    Call call(a);
    call.problem.top_k = integer_of(a.top_k);
    call.problem.x_rows = static_cast<smlora_row_order>(integer_of(a.x_rows));
    smlora_group_args args;
    smlora_group_args_init(&args, sizeof args);
    args.x = call.tensor(a.x, "x");
    call.problem.dtype = args.x.dtype;
    args.gates = call.gates(a.gates);
    args.routing = call.routing(a);
    args.out = output(a.out, "out");
    return call.run(smlora_group, args);
}

PyObject* combine_rows(const combine_rows_arguments& a) {
    Call call(a);
    call.problem.top_k = integer_of(a.top_k);
    smlora_combine_args args;
    smlora_combine_args_init(&args, sizeof args);
    args.y = call.tensor(a.y, "y");
    call.problem.dtype = args.y.dtype;
    args.gates = call.gates(a.gates);
    args.out = output(a.out, "out");
    return call.run(smlora_combine, args);
}

PyObject* combine_backward(const combine_backward_arguments& a) {
    Call call(a);
    call.problem.top_k = integer_of(a.top_k);
    smlora_combine_backward_args args;
    smlora_combine_backward_args_init(&args, sizeof args);
    args.dout = call.tensor(a.dout, "dout");
    call.problem.dtype = args.dout.dtype;
    args.y = call.tensor(a.y, "y");
    args.gates = call.gates(a.gates);
    args.dy = output(a.dy, "dy", flag_of(a.want_dy));
    args.dgates = output(a.dgates, "dgates", flag_of(a.want_dgates));
    if (args.dgates.ndim > 0) call.problem.gate_dtype = args.dgates.dtype;
    return call.run(smlora_combine_backward, args);
}

template <class Arguments, class Args>
void read_activation(const Arguments& a, Args& args) {
    args.activation = static_cast<smlora_activation_kind>(integer_of(a.kind));
    args.layout = static_cast<smlora_gate_layout>(integer_of(a.layout));
    args.alpha = number_of(a.alpha);
    args.limit = number_of(a.limit);
}

PyObject* activation_rows(const activation_rows_arguments& a) {
    Call call(a);
    smlora_activation_args args;
    smlora_activation_args_init(&args, sizeof args);
    read_activation(a, args);
    args.h = call.tensor(a.h, "h");
    call.problem.dtype = args.h.dtype;
    args.a = output(a.a, "a");
    return call.run(smlora_activation, args);
}

PyObject* activation_backward(const activation_backward_arguments& a) {
    Call call(a);
    smlora_activation_backward_args args;
    smlora_activation_backward_args_init(&args, sizeof args);
    read_activation(a, args);
    args.h = call.tensor(a.h, "h");
    call.problem.dtype = args.h.dtype;
    args.da = call.tensor(a.da, "da");
    args.dh = output(a.dh, "dh");
    args.a = output(a.a, "a", flag_of(a.want_a));
    return call.run(smlora_activation_backward, args);
}

PyObject* forward(const forward_arguments& a) {
    Call call(a);
    call.problem.top_k = integer_of(a.top_k);
    call.row_orders(a.x_rows, a.y_rows);
    smlora_forward_args args;
    smlora_forward_args_init(&args, sizeof args);
    args.scaling = number_of(a.scaling);
    args.x = call.tensor(a.x, "x");
    args.W = call.weight(a.W);
    args.A = call.tensor(a.A, "A");
    args.B = call.tensor(a.B, "B");
    call.adapter(args.A, 1);
    args.bias = call.tensor(a.bias, "bias");
    call.problem.bias = args.bias.ndim > 0;
    args.gates = call.gates(a.gates);
    call.problem.gates = args.gates.ndim > 0;
    if (args.x.ndim == 2 && args.x.shape[1] != call.problem.K) {
        PyErr_Format(PyExc_ValueError,
                     "x: expected K = %lld columns for a weight [E, K, N], got %lld; a weight that is stored [E, N, K] "
                     "is passed as its transpose(1, 2)",
                     static_cast<long long>(call.problem.K), static_cast<long long>(args.x.shape[1]));
        throw PythonError{};
    }
    args.routing = call.routing(a);
    args.y = output(a.y, "y");
    if (flag_of(a.save_xa)) args.xa = call.rank_rows(a.xa, "xa");
    Reference memory;
    args.workspace = call.workspace(smlora_forward_workspace, call.tokens(args.x, call.problem.x_rows), memory);
    return call.run(smlora_forward, args);
}

PyObject* backward_input(const backward_input_arguments& a) {
    Call call(a);
    call.problem.top_k = integer_of(a.top_k);
    call.row_orders(a.x_rows, a.y_rows);
    smlora_backward_input_args args;
    smlora_backward_input_args_init(&args, sizeof args);
    args.scaling = number_of(a.scaling);
    args.dy = call.tensor(a.dy, "dy");
    args.W = call.weight(a.W);
    args.A = call.tensor(a.A, "A");
    args.B = call.tensor(a.B, "B");
    call.adapter(args.A, 1);
    args.gates = call.gates(a.gates);
    call.problem.gates = args.gates.ndim > 0;
    args.routing = call.routing(a);
    args.x = call.tensor(a.x, "x");
    args.bias = call.tensor(a.bias, "bias");
    call.problem.bias = args.bias.ndim > 0;
    args.dx = output(a.dx, "dx");
    if (flag_of(a.save_yb)) args.yb = call.rank_rows(a.yb, "yb");
    args.dgates = output(a.dgates, "dgates", flag_of(a.want_dgates));
    Reference memory;
    args.workspace = call.workspace(smlora_backward_input_workspace, call.tokens(args.dy, call.problem.y_rows), memory);
    return call.run(smlora_backward_input, args);
}

PyObject* backward_lora(const backward_lora_arguments& a) {
    Call call(a);
    call.problem.top_k = integer_of(a.top_k);
    call.row_orders(a.x_rows, a.y_rows);
    smlora_backward_lora_args args;
    smlora_backward_lora_args_init(&args, sizeof args);
    args.scaling = number_of(a.scaling);
    args.x = call.tensor(a.x, "x");
    args.dy = call.tensor(a.dy, "dy");
    call.problem.dtype = args.x.dtype;
    if (args.x.ndim == 2) call.problem.K = args.x.shape[1];
    if (args.dy.ndim == 2) call.problem.N = args.dy.shape[1];
    args.A = call.tensor(a.A, "A");
    args.B = call.tensor(a.B, "B");
    args.gates = call.gates(a.gates);
    call.problem.gates = args.gates.ndim > 0;
    args.routing = call.routing(a);
    args.dA = output(a.dA, "dA", flag_of(a.want_dA));
    args.dB = output(a.dB, "dB", flag_of(a.want_dB));
    call.adapter(args.dB, 2);
    call.adapter(args.dA, 1);
    args.xa = call.rank_rows(a.xa, "xa");
    args.yb = call.rank_rows(a.yb, "yb");
    Reference memory;
    args.workspace = call.workspace(smlora_backward_lora_workspace, call.tokens(args.x, call.problem.x_rows), memory);
    return call.run(smlora_backward_lora, args);
}

/// padded_rank(R: int) -> int
PyObject* padded_rank(Arguments arguments) {
    const std::int64_t R = arguments.integer();
    arguments.end();
    return PyLong_FromLongLong(smlora_padded_rank(R));
}

/// set_torch(dtypes: list, error: type): torch's dtypes in the order of smlora_dtype, and the class of errors that are
/// neither of a value nor of memory.
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
                         method("prewarm", &entry<prewarm>),
                         method("tune", &entry<tune>),
                         method("set_torch", &entry<set_torch>),
                         method("padded_rank", &entry<padded_rank>),
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
           add("activations", names_of(smlora_activation_name)) && add("tune_skews", names_of(smlora_tune_skew_name)) &&
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
