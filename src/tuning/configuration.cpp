#include "tuning/configuration.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora::tuning {

std::int64_t Configuration::at(std::string_view name) const {
    for (const auto& [key, value] : values) {
        if (key == name) return value;
    }
    throw Error(ErrorCode::internal, fmt::format("a configuration of {} has no {}", family, name));
}

nlohmann::ordered_json to_json(const Configuration& configuration) {
    nlohmann::ordered_json json{{"family", configuration.family}};
    for (const auto& [key, value] : configuration.values) json[key] = value;
    return json;
}

std::optional<Configuration> configuration_from(const nlohmann::ordered_json& json) {
    if (!json.is_object() || !json.contains("family") || !json["family"].is_string()) return std::nullopt;
    Configuration configuration;
    for (const auto& [key, value] : json.items()) {
        if (key == "family") {
            configuration.family = value.get<std::string>();
        } else if (value.is_number_integer()) {
            configuration.values.emplace_back(key, value.get<std::int64_t>());
        } else {
            return std::nullopt;
        }
    }
    return configuration;
}

}  // namespace smlora::tuning
