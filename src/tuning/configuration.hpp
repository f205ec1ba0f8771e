// What makes one candidate differ from another: a kernel family and its named numbers.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace smlora::tuning {

/// {"family": "grouped_product_mma", "TILE_M": 128, ..}. What the numbers mean is the family's own affair; two
/// configurations are the same if family, names, values and their order are.
struct Configuration {
    std::string family;
    std::vector<std::pair<std::string, std::int64_t>> values;

    /// The value called `name`. Throws Error{internal} if there is none: a family was handed what is not its own.
    [[nodiscard]] std::int64_t at(std::string_view name) const;

    /// The same of one that not every configuration of the family has: `absent` if there is none.
    [[nodiscard]] std::int64_t at(std::string_view name, std::int64_t absent) const;

    friend bool operator==(const Configuration&, const Configuration&) = default;
};

[[nodiscard]] nlohmann::ordered_json to_json(const Configuration& configuration);

/// Nothing unless `json` is an object with a text "family" and integers otherwise.
[[nodiscard]] std::optional<Configuration> configuration_from(const nlohmann::ordered_json& json);

}  // namespace smlora::tuning
