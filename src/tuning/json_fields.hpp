// Reading JSON that anybody may have written: each function names the member that is missing or makes no sense.
#pragma once

#include "tuning/configuration.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace smlora::tuning {

using Json = nlohmann::ordered_json;

/// Why a text is no record. The functions below throw it.
struct Unsound : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A hundred days in microseconds, and far more than any ratio.
inline constexpr double most_number = 1e13;

/// Bytes of a name, which have some hundred, and of a reason, which may be a compiler's.
inline constexpr std::size_t most_text = 1000;
inline constexpr std::size_t most_message = 4000;

/// Of one piece of work; more than there are.
inline constexpr std::size_t most_candidates = 4096;

/// As many as JSON has values, see util/json.hpp.
inline constexpr std::size_t any_number = std::numeric_limits<std::size_t>::max();

inline constexpr std::int64_t any_amount = std::numeric_limits<std::int64_t>::max();

/// The member called `name`, null if there is none.
[[nodiscard]] const Json& member(const Json& json, const char* name);

/// A line that can be printed.
[[nodiscard]] std::string text(const Json& json, const char* name);
/// Any text, made so that it can be printed.
[[nodiscard]] std::string message(const Json& json, const char* name);
[[nodiscard]] bool boolean(const Json& json, const char* name);
/// From 0 to `most`.
[[nodiscard]] double number(const Json& json, const char* name, double most = most_number);
/// Above 0 and at most most_number.
[[nodiscard]] double positive(const Json& json, const char* name);
/// From 0 to `most`.
[[nodiscard]] std::int64_t integer(const Json& json, const char* name, std::int64_t most = any_amount);
[[nodiscard]] std::uint64_t unsigned_integer(const Json& json, const char* name);
/// Of at most so many items.
[[nodiscard]] const Json& array(const Json& json, const char* name, std::size_t most);
[[nodiscard]] Configuration configuration(const Json& json, const char* name);

}  // namespace smlora::tuning
