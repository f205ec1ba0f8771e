// From the C structs to the C++ ones, member by member: their layouts are independent of each other.
#pragma once

#include "capi/boundary.hpp"
#include "capi/members.hpp"

#include <smlora/smlora.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace smlora::capi {

/// What a message calls a member: "options.backend", or "x" for a member of an operation's arguments.
struct Name {
    const char* object;  ///< may be empty
    const char* member;
};

// Each throws Error{invalid_argument} for a null pointer, a struct_size, an enumerator or a flag that is wrong, and
// names it. What the values mean together is checked by the operation.

[[nodiscard]] Tensor to_tensor(const smlora_tensor& tensor, Name name);
[[nodiscard]] Problem to_problem(const smlora_problem* problem, const char* name = "problem");
[[nodiscard]] Weight to_weight(const smlora_weight* weight);
[[nodiscard]] EngineOptions to_options(const smlora_engine_options* options);
[[nodiscard]] PrewarmOptions to_options(const smlora_prewarm_options& options);
/// Null: the defaults.
[[nodiscard]] TuneOptions to_options(const smlora_tune_options* options);

/// The arguments of an operation.
template <class C>
[[nodiscard]] typename Members<C>::Cpp to_args(const C* args);

/// The C struct with the defaults of the C++ one.
template <class C>
[[nodiscard]] C defaults();

/// Its number in the C interface.
[[nodiscard]] smlora_log_level to_c(LogLevel level);

[[nodiscard]] smlora_weight_format to_c(const WeightFormat& format);

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

}  // namespace smlora::capi
