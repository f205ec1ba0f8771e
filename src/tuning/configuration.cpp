#include "tuning/configuration.hpp"

#include "util/printable.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora::tuning {
namespace {

/// Of a constant or family.
bool is_name(const std::string& text) { return text.size() <= 100 && util::is_printable(text); }

const std::int64_t* find(const Configuration& configuration, std::string_view name) {
    for (const auto& [key, value] : configuration.values) {
        if (key == name) return &value;
    }
    return nullptr;
}

}  // namespace

std::int64_t Configuration::at(std::string_view name) const {
    const std::int64_t* const value = find(*this, name);
    if (value == nullptr) {
        throw Error(ErrorCode::internal, fmt::format("a configuration of {} has no {}", family, name));
    }
    return *value;
}

std::int64_t Configuration::at(std::string_view name, std::int64_t absent) const {
    const std::int64_t* const value = find(*this, name);
    return value == nullptr ? absent : *value;
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
        if (!is_name(key)) return std::nullopt;
        if (key == "family") {
            configuration.family = value.get<std::string>();
            if (!is_name(configuration.family)) return std::nullopt;
        } else if (value.is_number_integer()) {
            configuration.values.emplace_back(key, value.get<std::int64_t>());
        } else {
            return std::nullopt;
        }
    }
    return configuration;
}

}  // namespace smlora::tuning
