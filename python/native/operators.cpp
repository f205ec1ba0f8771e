#include "operators.hpp"

#include "engine.hpp"

#include <smlora/smlora.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace smlora::python {
namespace {

/// The tensors of a quantised weight beside its codes, one after the other.
class Parts {
 public:
    Parts(PyObject* list, Device& device) : items_(items_of(list)), device_(device) {}

    [[nodiscard]] bool any_left() const { return next_ < items_.size(); }

    smlora_tensor tensor(const char* name) {
        if (!any_left()) {
            PyErr_Format(PyExc_ValueError, "%s: expected a tensor, got none", name);
            throw PythonError{};
        }
        PyObject* const object = items_[next_++];
        device_.check(object, name);
        return to_tensor(object, name, Types::packed);
    }

 private:
    std::vector<PyObject*> items_;
    std::size_t next_ = 0;
    Device& device_;
};

/// As QuantizedWeight.operands() gives it. `transposed`: whether it is passed as the view [E, columns, rows].
smlora_weight quantized_weight(PyObject* codes, PyObject* part_list, PyObject* format, Device& device,
                               bool* transposed = nullptr) {
    smlora_weight weight{};
    const std::vector<PyObject*> numbers = items_of(format);
    Arguments fields(numbers.data(), static_cast<Py_ssize_t>(numbers.size()));
    weight.encoding = static_cast<smlora_encoding>(fields.integer());
    weight.E = fields.integer();
    weight.rows = fields.integer();
    weight.columns = fields.integer();
    weight.block = fields.integer();
    weight.parts = fields.integer();
    weight.double_quantization.block = fields.integer();
    weight.global_scale = static_cast<smlora_global_scale>(fields.integer());
    const bool view = fields.integer() != 0;
    if (transposed != nullptr) *transposed = view;
    fields.end();
    device.check(codes, "W.codes");
    weight.codes = to_tensor(codes, "W.codes", Types::packed);
    Parts parts(part_list, device);
    weight.scales = parts.tensor("W.scales");
    if (weight.encoding == SMLORA_ENCODING_NF4 || weight.encoding == SMLORA_ENCODING_FP4) {
        weight.table = parts.tensor("W.table");
        if (parts.any_left()) {
            weight.double_quantization.scales = parts.tensor("W.outer_scales");
            weight.double_quantization.table = parts.tensor("W.outer_table");
            weight.double_quantization.offset = parts.tensor("W.outer_offset");
        }
    }
    if (weight.encoding == SMLORA_ENCODING_NVFP4) weight.global_scales = parts.tensor("W.global_scales");
    if (parts.any_left()) {
        PyErr_Format(PyExc_ValueError, "W: expected no more tensors than those that %s has, got others as well",
                     smlora_encoding_name(weight.encoding));
        throw PythonError{};
    }
    return weight;
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
    smlora_weight quantized{};  // where a call is given one
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

    /// What an operation multiplies with, of its arguments W, weight_parts and weight_format: args.W or args.quantized.
    template <class Arguments, class Args>
    void read_weight(const Arguments& a, const smlora_tensor& rows, Args& args) {
        if (a.weight_format == Py_None) {
            args.W = plain_weight(a.W);
            return;
        }
        bool transposed = false;
        quantized = quantized_weight(a.W, a.weight_parts, a.weight_format, device, &transposed);
        args.quantized = &quantized;
        problem.weight_layout = transposed ? SMLORA_WEIGHT_ENK : SMLORA_WEIGHT_EKN;
        problem.E = quantized.E;
        problem.K = transposed ? quantized.columns : quantized.rows;
        problem.N = transposed ? quantized.rows : quantized.columns;
        problem.dtype = rows.dtype;
        check(smlora_format_of(&quantized, &problem.weights));
    }

    /// A view [E, K, N] in either layout; sets E, K, N and dtype.
    smlora_tensor plain_weight(PyObject* object) {
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

template <class Arguments, class Args>
void read_activation(const Arguments& a, Args& args) {
    args.activation = static_cast<smlora_activation_kind>(integer_of(a.kind));
    args.layout = static_cast<smlora_gate_layout>(integer_of(a.layout));
    args.alpha = number_of(a.alpha);
    args.limit = number_of(a.limit);
}

}  // namespace

PyObject* check_weight(Arguments arguments) {
    PyObject* const codes = arguments.next();
    PyObject* const parts = arguments.next();
    PyObject* const format = arguments.next();
    arguments.end();
    Device device;
    const smlora_weight weight = quantized_weight(codes, parts, format, device);
    check(smlora_validate_weight(&weight));
    return none();
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
    args.gates = call.gates(a.gates);
    if (args.gates.ndim == 2) call.problem.top_k = args.gates.shape[1];
    args.sorted_scattered_idxs = call.tensor(a.sorted_scattered_idxs, "sorted_scattered_idxs");
    if (args.sorted_scattered_idxs.ndim > 0) call.problem.index_dtype = args.sorted_scattered_idxs.dtype;
    args.dgates = output(a.dgates, "dgates", args.gates.ndim > 0);
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
    call.read_weight(a, args.x, args);
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
    call.read_weight(a, args.dy, args);
    args.A = call.tensor(a.A, "A");
    args.B = call.tensor(a.B, "B");
    call.adapter(args.A, 1);
    args.gates = call.gates(a.gates);
    call.problem.gates = args.gates.ndim > 0;
    args.before_gates = flag_of(a.before_gates);
    if (args.before_gates) args.gates = {};  // they have told that there are some, and of what type
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

PyObject* dequantize(const dequantize_arguments& a) {
    Call call(a);
    smlora_dequantize_args args;
    smlora_dequantize_args_init(&args, sizeof args);
    args.W = quantized_weight(a.codes, a.weight_parts, a.weight_format, call.device);
    args.out = output(a.out, "out");
    check(without_gil([&] { return smlora_dequantize(call.engine, call.stream, &args); }));
    return none();
}

PyObject* arrange_scales(const arrange_scales_arguments& a) {
    Call call(a);
    smlora_arrange_scales_args args;
    smlora_arrange_scales_args_init(&args, sizeof args);
    args.W = quantized_weight(a.codes, a.weight_parts, a.weight_format, call.device);
    args.out = to_tensor(a.out, "out", Types::packed);
    check(without_gil([&] { return smlora_arrange_scales(call.engine, call.stream, &args); }));
    return none();
}

}  // namespace smlora::python
