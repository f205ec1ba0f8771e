// From the C structs to the C++ ones, field by field: their layouts are independent of each other.
#pragma once

#include "capi/boundary.hpp"

#include <smlora/smlora.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace smlora::capi {

/// Each throws Error{invalid_argument} for a null pointer, a struct_size, an enumerator or a flag that is wrong; `name`
/// is how the message calls the argument. What the values mean together is checked by the operation.
/// The strings of a C array.
template <class String>
[[nodiscard]] std::vector<String> to_strings(const char* const* texts, std::size_t count, const char* name) {
    std::vector<String> result;
    if (count > 0) required(texts, name);
    for (std::size_t i = 0; i < count; ++i) {
        result.emplace_back(&required(texts[i], (std::string(name) + "[" + std::to_string(i) + "]").c_str()));
    }
    return result;
}

[[nodiscard]] DType to_dtype(smlora_dtype dtype, const char* name);
[[nodiscard]] Tensor to_tensor(const smlora_tensor& tensor, const char* name);
[[nodiscard]] Problem to_problem(const smlora_problem* problem, const char* name = "problem");
[[nodiscard]] EngineOptions to_options(const smlora_engine_options* options);
[[nodiscard]] PrewarmOptions to_options(const smlora_prewarm_options& options);
/// Null: the defaults.
[[nodiscard]] TuneOptions to_options(const smlora_tune_options* options);

[[nodiscard]] RouteArgs to_args(const smlora_route_args* args);
[[nodiscard]] GroupArgs to_args(const smlora_group_args* args);
[[nodiscard]] CombineArgs to_args(const smlora_combine_args* args);
[[nodiscard]] CombineBackwardArgs to_args(const smlora_combine_backward_args* args);
[[nodiscard]] ActivationArgs to_args(const smlora_activation_args* args);
[[nodiscard]] ActivationBackwardArgs to_args(const smlora_activation_backward_args* args);
[[nodiscard]] ForwardArgs to_args(const smlora_forward_args* args);
[[nodiscard]] BackwardInputArgs to_args(const smlora_backward_input_args* args);
[[nodiscard]] BackwardLoraArgs to_args(const smlora_backward_lora_args* args);

}  // namespace smlora::capi
