// smlora._native: the operations of smlora.h on torch tensors. It needs no header of torch: a tensor is asked for its
// data_ptr(), dtype, shape and stride() through Python, so that one wheel serves every version of torch, and the
// limited C API of Python makes it serve every version of Python as well. Everything that costs microseconds is here;
// what a call means is in the Python files.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arguments.hpp"

#include <smlora/smlora.h>

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
    smlora_engine* created = nullptr;
    check(smlora_engine_create(&options, &created));
    return PyCapsule_New(created, engine_name, destroy_engine);
}

/// set_nvrtc_folders(folders: list[str]) -> None
PyObject* set_nvrtc_folders(Arguments arguments) {
    const std::vector<std::string> folders = strings_of(arguments.next());
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
PyObject* system_info(Arguments) {
    char* text = nullptr;
    check(without_gil([&] { return smlora_system_info(&text); }));
    return text_of(text);
}

/// cache_stats(engine) -> str, JSON
PyObject* cache_stats(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
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
    return problem;
}

/// prewarm(engine, problems: list[list[int]], tokens: list[int]) -> str, JSON
PyObject* prewarm(Arguments arguments) {
    smlora_engine* const engine = engine_of(arguments.next());
    std::vector<smlora_problem> problems;
    for (PyObject* const fields : items_of(arguments.next())) problems.push_back(problem_of(fields));
    std::vector<std::int64_t> tokens;
    for (PyObject* const number : items_of(arguments.next())) tokens.push_back(integer_of(number));
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

/// What every operation begins with: engine, stream and a problem of the defaults.
struct Call {
    explicit Call(Arguments& arguments) {
        engine = engine_of(arguments.next());
        stream = reinterpret_cast<smlora_stream>(arguments.integer());
        smlora_problem_init(&problem, sizeof problem);
        problem.E = problem.K = problem.N = 1;  // for the operations that have none
    }

    smlora_engine* engine = nullptr;
    smlora_stream stream = nullptr;
    smlora_problem problem;
    Device device;

    smlora_tensor tensor(Arguments& arguments, const char* name) {
        PyObject* const object = arguments.next();
        if (object != Py_None) device.check(object, name);
        return to_tensor(object, name);
    }

    /// What the package made itself, where it belongs.
    static smlora_tensor output(Arguments& arguments, const char* name) { return to_tensor(arguments.next(), name); }

    /// The routing's arrays, and index_dtype.
    smlora_routing routing(Arguments& arguments, bool with_experts) {
        smlora_routing result{};
        if (with_experts) result.sorted_expert_idxs = tensor(arguments, "routing.sorted_expert_idxs");
        result.sorted_scattered_idxs = tensor(arguments, "routing.sorted_scattered_idxs");
        result.expert_offsets = tensor(arguments, "routing.expert_offsets");
        problem.index_dtype = result.sorted_scattered_idxs.dtype;
        if (result.expert_offsets.ndim == 1) problem.E = result.expert_offsets.shape[0];
        return result;
    }

    smlora_tensor gates(Arguments& arguments) {
        const smlora_tensor result = tensor(arguments, "gates");
        if (result.ndim > 0) problem.gate_dtype = result.dtype;
        return result;
    }

    /// W, a view [E, K, N] in either layout; sets E, K, N and dtype.
    smlora_tensor weight(Arguments& arguments) {
        smlora_tensor W = tensor(arguments, "weight");
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
    smlora_tensor rank_rows(Arguments& arguments, const char* name) const {
        smlora_tensor rows = output(arguments, name);
        if (rows.ndim == 2 && rows.shape[1] == smlora_padded_rank(problem.R)) rows.shape[1] = problem.R;
        return rows;
    }

    void row_orders(Arguments& arguments) {
        problem.x_rows = static_cast<smlora_row_order>(arguments.integer());
        problem.y_rows = static_cast<smlora_row_order>(arguments.integer());
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
    smlora_workspace workspace(Arguments& arguments, Query query, std::int64_t T, Reference& keep) {
        PyObject* const allocate = arguments.next();
        if (allocate == Py_None) return {};
        settle();
        std::size_t bytes = 0;
        check_operation(query(engine, &problem, T, &bytes));
        if (bytes == 0) return {};
        keep = Reference(PyObject_CallFunction(allocate, "n", static_cast<Py_ssize_t>(bytes)));
        return {data_of(keep.get()), bytes};
    }

    template <class Operation, class Args>
    PyObject* run(Operation operation, const Args& args) {
        settle();
        check_operation(without_gil([&] { return operation(engine, stream, &problem, &args); }));
        return none();
    }
};

/// route(engine, stream, E, allocate, top_idx, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets)
PyObject* route(Arguments arguments) {
    Call call(arguments);
    call.problem.E = arguments.integer();
    Arguments allocator = arguments.split(1);
    smlora_route_args args;
    smlora_route_args_init(&args, sizeof args);
    args.top_idx = call.tensor(arguments, "top_idx");
    if (args.top_idx.ndim == 2) call.problem.top_k = args.top_idx.shape[1];
    args.routing = call.routing(arguments, true);
    Reference memory;
    args.workspace =
        call.workspace(allocator, smlora_route_workspace, args.top_idx.ndim == 2 ? args.top_idx.shape[0] : 0, memory);
    return call.run(smlora_route, args);
}

/// group(engine, stream, top_k, x_rows, x, gates, sorted_scattered_idxs, expert_offsets, out)
PyObject* group(Arguments arguments) {
    Call call(arguments);
    call.problem.top_k = arguments.integer();
    call.problem.x_rows = static_cast<smlora_row_order>(arguments.integer());
    smlora_group_args args;
    smlora_group_args_init(&args, sizeof args);
    args.x = call.tensor(arguments, "x");
    call.problem.dtype = args.x.dtype;
    args.gates = call.gates(arguments);
    args.routing = call.routing(arguments, false);
    args.out = call.output(arguments, "out");
    return call.run(smlora_group, args);
}

/// combine(engine, stream, top_k, y, gates, out)
PyObject* combine(Arguments arguments) {
    Call call(arguments);
    call.problem.top_k = arguments.integer();
    smlora_combine_args args;
    smlora_combine_args_init(&args, sizeof args);
    args.y = call.tensor(arguments, "y");
    call.problem.dtype = args.y.dtype;
    args.gates = call.gates(arguments);
    args.out = call.output(arguments, "out");
    return call.run(smlora_combine, args);
}

/// combine_backward(engine, stream, top_k, dout, y, gates, dy, dgates)
PyObject* combine_backward(Arguments arguments) {
    Call call(arguments);
    call.problem.top_k = arguments.integer();
    smlora_combine_backward_args args;
    smlora_combine_backward_args_init(&args, sizeof args);
    args.dout = call.tensor(arguments, "dout");
    call.problem.dtype = args.dout.dtype;
    args.y = call.tensor(arguments, "y");
    args.gates = call.gates(arguments);
    args.dy = call.output(arguments, "dy");
    args.dgates = call.output(arguments, "dgates");
    if (args.dgates.ndim > 0) call.problem.gate_dtype = args.dgates.dtype;
    return call.run(smlora_combine_backward, args);
}

template <class Args>
void read_activation(Arguments& arguments, Args& args) {
    args.activation = static_cast<smlora_activation_kind>(arguments.integer());
    args.layout = static_cast<smlora_gate_layout>(arguments.integer());
    args.alpha = arguments.number();
    args.limit = arguments.number();
}

/// activation(engine, stream, kind, layout, alpha, limit, h, a)
PyObject* activation(Arguments arguments) {
    Call call(arguments);
    smlora_activation_args args;
    smlora_activation_args_init(&args, sizeof args);
    read_activation(arguments, args);
    args.h = call.tensor(arguments, "h");
    call.problem.dtype = args.h.dtype;
    args.a = call.output(arguments, "a");
    return call.run(smlora_activation, args);
}

/// activation_backward(engine, stream, kind, layout, alpha, limit, h, da, dh, a)
PyObject* activation_backward(Arguments arguments) {
    Call call(arguments);
    smlora_activation_backward_args args;
    smlora_activation_backward_args_init(&args, sizeof args);
    read_activation(arguments, args);
    args.h = call.tensor(arguments, "h");
    call.problem.dtype = args.h.dtype;
    args.da = call.tensor(arguments, "da");
    args.dh = call.output(arguments, "dh");
    args.a = call.output(arguments, "a");
    return call.run(smlora_activation_backward, args);
}

/// forward(engine, stream, top_k, x_rows, y_rows, scaling, allocate, x, W, A, B, bias, gates, sorted_scattered_idxs,
///         expert_offsets, y, xa)
PyObject* forward(Arguments arguments) {
    Call call(arguments);
    call.problem.top_k = arguments.integer();
    call.row_orders(arguments);
    smlora_forward_args args;
    smlora_forward_args_init(&args, sizeof args);
    args.scaling = arguments.number();
    Arguments allocator = arguments.split(1);
    args.x = call.tensor(arguments, "x");
    args.W = call.weight(arguments);
    args.A = call.tensor(arguments, "lora_A");
    args.B = call.tensor(arguments, "lora_B");
    call.adapter(args.A, 1);
    args.bias = call.tensor(arguments, "bias");
    call.problem.bias = args.bias.ndim > 0;
    args.gates = call.gates(arguments);
    call.problem.gates = args.gates.ndim > 0;
    if (args.x.ndim == 2 && args.x.shape[1] != call.problem.K) {
        PyErr_Format(PyExc_ValueError,
                     "x: expected K = %lld columns for a weight [E, K, N], got %lld; one that is stored [E, N, K] is "
                     "taken as its transpose(1, 2)",
                     static_cast<long long>(call.problem.K), static_cast<long long>(args.x.shape[1]));
        throw PythonError{};
    }
    args.routing = call.routing(arguments, false);
    args.y = call.output(arguments, "y");
    args.xa = call.rank_rows(arguments, "xa");
    Reference memory;
    args.workspace =
        call.workspace(allocator, smlora_forward_workspace, call.tokens(args.x, call.problem.x_rows), memory);
    return call.run(smlora_forward, args);
}

/// backward_input(engine, stream, top_k, x_rows, y_rows, scaling, allocate, dy, W, A, B, gates, sorted_scattered_idxs,
///                expert_offsets, x, bias, dx, yb, dgates)
PyObject* backward_input(Arguments arguments) {
    Call call(arguments);
    call.problem.top_k = arguments.integer();
    call.row_orders(arguments);
    smlora_backward_input_args args;
    smlora_backward_input_args_init(&args, sizeof args);
    args.scaling = arguments.number();
    Arguments allocator = arguments.split(1);
    args.dy = call.tensor(arguments, "dy");
    args.W = call.weight(arguments);
    args.A = call.tensor(arguments, "lora_A");
    args.B = call.tensor(arguments, "lora_B");
    call.adapter(args.A, 1);
    args.gates = call.gates(arguments);
    call.problem.gates = args.gates.ndim > 0;
    args.routing = call.routing(arguments, false);
    args.x = call.tensor(arguments, "x");
    args.bias = call.tensor(arguments, "bias");
    call.problem.bias = args.bias.ndim > 0;
    args.dx = call.output(arguments, "dx");
    args.yb = call.rank_rows(arguments, "yb");
    args.dgates = call.output(arguments, "dgates");
    Reference memory;
    args.workspace =
        call.workspace(allocator, smlora_backward_input_workspace, call.tokens(args.dy, call.problem.y_rows), memory);
    return call.run(smlora_backward_input, args);
}

/// backward_lora(engine, stream, top_k, x_rows, y_rows, scaling, allocate, x, dy, A, B, gates, sorted_scattered_idxs,
///               expert_offsets, xa, yb, dA, dB)
PyObject* backward_lora(Arguments arguments) {
    Call call(arguments);
    call.problem.top_k = arguments.integer();
    call.row_orders(arguments);
    smlora_backward_lora_args args;
    smlora_backward_lora_args_init(&args, sizeof args);
    args.scaling = arguments.number();
    Arguments allocator = arguments.split(1);
    args.x = call.tensor(arguments, "x");
    args.dy = call.tensor(arguments, "dy");
    call.problem.dtype = args.x.dtype;
    if (args.x.ndim == 2) call.problem.K = args.x.shape[1];
    if (args.dy.ndim == 2) call.problem.N = args.dy.shape[1];
    args.A = call.tensor(arguments, "lora_A");
    args.B = call.tensor(arguments, "lora_B");
    args.gates = call.gates(arguments);
    call.problem.gates = args.gates.ndim > 0;
    args.routing = call.routing(arguments, false);
    Arguments rank_rows = arguments.split(2);
    args.dA = call.output(arguments, "dA");
    args.dB = call.output(arguments, "dB");
    call.adapter(args.dB, 2);
    call.adapter(args.dA, 1);
    args.xa = call.rank_rows(rank_rows, "xa");
    args.yb = call.rank_rows(rank_rows, "yb");
    Reference memory;
    args.workspace =
        call.workspace(allocator, smlora_backward_lora_workspace, call.tokens(args.x, call.problem.x_rows), memory);
    return call.run(smlora_backward_lora, args);
}

/// set_torch(dtypes: list, error: type): torch's dtypes in the order of smlora_dtype, and the class of errors that are
/// neither of a value nor of memory.
PyObject* set_torch(Arguments arguments) {
    PyObject* const dtypes = arguments.next();
    set_known_types(dtypes, arguments.next());
    return none();
}

template <PyObject* (*function)(Arguments)>
PyObject* entry(PyObject*, PyObject* const* arguments, Py_ssize_t count) noexcept {
    return guarded([&] { return function(Arguments(arguments, count)); });
}

template <PyObject* (*function)(Arguments)>
constexpr PyMethodDef method(const char* name) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<function>)), METH_FASTCALL,
            nullptr};
}

PyMethodDef methods[] = {method<engine>("engine"),
                         method<set_nvrtc_folders>("set_nvrtc_folders"),
                         method<system_info>("system_info"),
                         method<cache_stats>("cache_stats"),
                         method<prewarm>("prewarm"),
                         method<set_torch>("set_torch"),
                         method<route>("route"),
                         method<group>("group"),
                         method<combine>("combine"),
                         method<combine_backward>("combine_backward"),
                         method<activation>("activation"),
                         method<activation_backward>("activation_backward"),
                         method<forward>("forward"),
                         method<backward_input>("backward_input"),
                         method<backward_lora>("backward_lora"),
                         {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "smlora._native", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace smlora::python

PyMODINIT_FUNC PyInit__native() {
    PyObject* created = PyModule_Create(&smlora::python::module);
    if (created != nullptr) PyModule_AddStringConstant(created, "version", smlora_version());
    return created;
}
