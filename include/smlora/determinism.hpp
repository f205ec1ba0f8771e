// What the bits of a result depend on.
#pragma once

#include <smlora/export.hpp>

#include <cstdint>
#include <string_view>

namespace smlora {

/// Which calls have the same bits.
enum class Determinism : std::int32_t {
    run = 0,    ///< calls with the same input: the gradients of the adapters, too
    batch = 1,  ///< and rows with the same input, whatever other rows the batch has; docs/rl.md has what is promised
};

/// "run", "batch".
[[nodiscard]] SMLORA_API std::string_view name(Determinism determinism);

/// The inverse of name(). Throws Error{invalid_argument}.
[[nodiscard]] SMLORA_API Determinism determinism_from_name(std::string_view text);

}  // namespace smlora
