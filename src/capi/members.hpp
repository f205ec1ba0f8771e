// The members of each C struct beside those of the C++ struct that it becomes. Converting, the defaults of the init
// functions and the tests all go by these lists; a member that is missing from one does not compile.
#pragma once

#include <smlora/smlora.h>
#include <smlora/smlora.hpp>

#include <cstddef>
#include <tuple>

namespace smlora::capi {

/// A member that both structs have under the same name.
template <class C, class CType, class Cpp, class CppType>
struct Member {
    const char* name;
    CType C::*c;
    CppType Cpp::*cpp;
};
template <class C, class CType, class Cpp, class CppType>
Member(const char*, CType C::*, CppType Cpp::*) -> Member<C, CType, Cpp, CppType>;

/// A member of the C struct that must be 0.
template <class C>
struct Reserved {
    std::int32_t C::*c;
};
template <class C>
Reserved(std::int32_t C::*) -> Reserved<C>;

/// A member of the C struct that is converted by hand: an array, its length, a callback.
template <class C, class CType>
struct ByHand {
    CType C::*c;
};
template <class C, class CType>
ByHand(CType C::*) -> ByHand<C, CType>;

/// `Cpp`: what the struct becomes. `by_hand`: members of it that are converted by hand. `list`: a tuple of the above.
template <class C>
struct Members;

#define SMLORA_MEMBERS(c_struct, cpp_struct, cpp_members_by_hand, ...) \
    template <>                                                        \
    struct Members<c_struct> {                                         \
        using C = c_struct;                                            \
        using Cpp = cpp_struct;                                        \
        static constexpr std::size_t by_hand = cpp_members_by_hand;    \
        static constexpr std::tuple list{__VA_ARGS__};                 \
    };                                                                 \
    static_assert(bytes_listed<c_struct>() == sizeof(c_struct), #c_struct ": a member is missing from the list")
#define SMLORA_BOTH(member) \
    Member { #member, &C::member, &Cpp::member }

/// Calls `function` with every Member, Reserved and ByHand of a list.
template <class C, class Function>
constexpr void for_each_member(Function&& function) {
    std::apply([&](const auto&... members) { (function(members), ...); }, Members<C>::list);
}

/// No C struct has padding.
template <class C>
consteval std::size_t bytes_listed() {
    std::size_t bytes = 0;
    if constexpr (requires(C c) { c.struct_size; }) bytes = sizeof(std::size_t);
    for_each_member<C>([&](const auto& member) { bytes += sizeof(C{}.*member.c); });
    return bytes;
}

SMLORA_MEMBERS(smlora_workspace, Workspace, 0, SMLORA_BOTH(data), SMLORA_BOTH(bytes));

SMLORA_MEMBERS(smlora_routing, Routing, 0, SMLORA_BOTH(sorted_expert_idxs), SMLORA_BOTH(sorted_scattered_idxs),
               SMLORA_BOTH(expert_offsets));

SMLORA_MEMBERS(smlora_weight_format, WeightFormat, 0, SMLORA_BOTH(encoding), SMLORA_BOTH(scales), SMLORA_BOTH(block),
               SMLORA_BOTH(parts), SMLORA_BOTH(outer_block), SMLORA_BOTH(global_scale), SMLORA_BOTH(arranged));

SMLORA_MEMBERS(smlora_problem, Problem, 0, SMLORA_BOTH(E), SMLORA_BOTH(K), SMLORA_BOTH(N), SMLORA_BOTH(R),
               SMLORA_BOTH(top_k), SMLORA_BOTH(dtype), SMLORA_BOTH(adapter_dtype), SMLORA_BOTH(gate_dtype),
               SMLORA_BOTH(index_dtype), SMLORA_BOTH(weight_layout), SMLORA_BOTH(x_rows), SMLORA_BOTH(y_rows),
               SMLORA_BOTH(bias), SMLORA_BOTH(gates), Reserved{&C::reserved}, SMLORA_BOTH(weights));

SMLORA_MEMBERS(smlora_route_args, RouteArgs, 0, SMLORA_BOTH(top_idx), SMLORA_BOTH(routing), SMLORA_BOTH(workspace));

SMLORA_MEMBERS(smlora_group_args, GroupArgs, 0, SMLORA_BOTH(x), SMLORA_BOTH(gates), SMLORA_BOTH(routing),
               SMLORA_BOTH(out), SMLORA_BOTH(workspace));

SMLORA_MEMBERS(smlora_combine_args, CombineArgs, 0, SMLORA_BOTH(y), SMLORA_BOTH(gates), SMLORA_BOTH(out),
               SMLORA_BOTH(workspace));

SMLORA_MEMBERS(smlora_combine_backward_args, CombineBackwardArgs, 0, SMLORA_BOTH(dout), SMLORA_BOTH(y),
               SMLORA_BOTH(gates), SMLORA_BOTH(dy), SMLORA_BOTH(dgates), SMLORA_BOTH(workspace));

SMLORA_MEMBERS(smlora_activation_args, ActivationArgs, 0, SMLORA_BOTH(h), SMLORA_BOTH(a), SMLORA_BOTH(activation),
               SMLORA_BOTH(layout), SMLORA_BOTH(alpha), SMLORA_BOTH(limit));

SMLORA_MEMBERS(smlora_activation_backward_args, ActivationBackwardArgs, 0, SMLORA_BOTH(h), SMLORA_BOTH(da),
               SMLORA_BOTH(dh), SMLORA_BOTH(a), SMLORA_BOTH(activation), SMLORA_BOTH(layout), SMLORA_BOTH(alpha),
               SMLORA_BOTH(limit), SMLORA_BOTH(gates), SMLORA_BOTH(sorted_scattered_idxs), SMLORA_BOTH(dgates));

SMLORA_MEMBERS(smlora_double_quantization, DoubleQuantization, 0, SMLORA_BOTH(scales), SMLORA_BOTH(table),
               SMLORA_BOTH(offset), SMLORA_BOTH(block));

SMLORA_MEMBERS(smlora_weight, Weight, 0, SMLORA_BOTH(encoding), SMLORA_BOTH(global_scale), SMLORA_BOTH(E),
               SMLORA_BOTH(rows), SMLORA_BOTH(columns), SMLORA_BOTH(block), SMLORA_BOTH(parts), SMLORA_BOTH(codes),
               SMLORA_BOTH(scales), SMLORA_BOTH(table), SMLORA_BOTH(double_quantization), SMLORA_BOTH(global_scales));

SMLORA_MEMBERS(smlora_dequantize_args, DequantizeArgs, 0, SMLORA_BOTH(W), SMLORA_BOTH(out));

SMLORA_MEMBERS(smlora_arrange_scales_args, ArrangeScalesArgs, 0, SMLORA_BOTH(W), SMLORA_BOTH(out));

SMLORA_MEMBERS(smlora_forward_args, ForwardArgs, 0, SMLORA_BOTH(x), SMLORA_BOTH(W), SMLORA_BOTH(A), SMLORA_BOTH(B),
               SMLORA_BOTH(bias), SMLORA_BOTH(gates), SMLORA_BOTH(routing), SMLORA_BOTH(y), SMLORA_BOTH(xa),
               SMLORA_BOTH(workspace), SMLORA_BOTH(scaling), Reserved{&C::reserved}, ByHand{&C::quantized});

SMLORA_MEMBERS(smlora_backward_input_args, BackwardInputArgs, 0, SMLORA_BOTH(dy), SMLORA_BOTH(W), SMLORA_BOTH(A),
               SMLORA_BOTH(B), SMLORA_BOTH(gates), SMLORA_BOTH(routing), SMLORA_BOTH(dx), SMLORA_BOTH(yb),
               SMLORA_BOTH(dgates), SMLORA_BOTH(x), SMLORA_BOTH(bias), SMLORA_BOTH(workspace), SMLORA_BOTH(scaling),
               SMLORA_BOTH(before_gates), ByHand{&C::quantized});

SMLORA_MEMBERS(smlora_backward_lora_args, BackwardLoraArgs, 0, SMLORA_BOTH(x), SMLORA_BOTH(dy), SMLORA_BOTH(A),
               SMLORA_BOTH(B), SMLORA_BOTH(gates), SMLORA_BOTH(routing), SMLORA_BOTH(xa), SMLORA_BOTH(yb),
               SMLORA_BOTH(dA), SMLORA_BOTH(dB), SMLORA_BOTH(workspace), SMLORA_BOTH(scaling), Reserved{&C::reserved});

SMLORA_MEMBERS(smlora_prewarm_activation, PrewarmActivation, 0, SMLORA_BOTH(activation), SMLORA_BOTH(layout),
               SMLORA_BOTH(width), SMLORA_BOTH(dtype), Reserved{&C::reserved});

// cache_layers, log
SMLORA_MEMBERS(smlora_engine_options, EngineOptions, 2, SMLORA_BOTH(backend), SMLORA_BOTH(device),
               SMLORA_BOTH(cache_root), SMLORA_BOTH(cache_limit_bytes), SMLORA_BOTH(threads), SMLORA_BOTH(tuning),
               SMLORA_BOTH(tuning_seconds), SMLORA_BOTH(tuning_memory_bytes), SMLORA_BOTH(shipped_layer),
               SMLORA_BOTH(unpack_limit_bytes), SMLORA_BOTH(determinism), ByHand{&C::cache_layers},
               ByHand{&C::cache_layer_count}, ByHand{&C::log}, ByHand{&C::log_user}, Reserved{&C::reserved});

// problems, tokens, archs, activations; the progress is an argument of prewarm()
SMLORA_MEMBERS(smlora_prewarm_options, PrewarmOptions, 4, SMLORA_BOTH(jobs), SMLORA_BOTH(check_only),
               ByHand{&C::problems}, ByHand{&C::problem_count}, ByHand{&C::tokens}, ByHand{&C::token_count},
               ByHand{&C::archs}, ByHand{&C::arch_count}, ByHand{&C::progress}, ByHand{&C::progress_user},
               ByHand{&C::activations}, ByHand{&C::activation_count});

// tokens, progress
SMLORA_MEMBERS(smlora_tune_options, TuneOptions, 2, SMLORA_BOTH(seconds), SMLORA_BOTH(memory_bytes),
               SMLORA_BOTH(candidates), SMLORA_BOTH(rounds), SMLORA_BOTH(skew), SMLORA_BOTH(again), ByHand{&C::tokens},
               ByHand{&C::token_count}, ByHand{&C::progress}, ByHand{&C::progress_user});

#undef SMLORA_BOTH
#undef SMLORA_MEMBERS

/// The structs that a caller fills in, each of which has an init function: arguments of operations, and all of them.
#define SMLORA_FOR_EACH_ARGS(function)                                                               \
    function(route_args) function(group_args) function(combine_args) function(combine_backward_args) \
        function(activation_args) function(activation_backward_args) function(dequantize_args)       \
            function(arrange_scales_args) function(forward_args) function(backward_input_args)       \
                function(backward_lora_args)
#define SMLORA_FOR_EACH_INPUT(function)                                                         \
    function(problem) function(engine_options) function(prewarm_options) function(tune_options) \
        SMLORA_FOR_EACH_ARGS(function)

}  // namespace smlora::capi
