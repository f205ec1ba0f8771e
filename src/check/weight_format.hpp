// The format of a quantised weight.
#pragma once

#include <smlora/encoding.hpp>

#include <cstdint>
#include <optional>
#include <span>

namespace smlora::check {

/// Checks the encoding, and of a quantised one the members that it looks at, but for the type of the scales, against
/// each other and the matrices [rows, columns]. Messages call a member "<name>.block".
void check_format(const char* name, const WeightFormat& format, std::int64_t rows, std::int64_t columns);

/// Checks that scales of such a weight can be arranged, but for their type.
void check_can_be_arranged(const char* name, const WeightFormat& format, std::int64_t rows, std::int64_t columns);

/// The types that scales of this format may have, in the order in which messages name them.
[[nodiscard]] std::span<const DType> scale_types(const WeightFormat& format);

/// Checks that it is one of `types`; not given is none of them.
void check_type(const char* name, std::optional<DType> dtype, std::span<const DType> types);

}  // namespace smlora::check
