#include "tuning/json_fields.hpp"

#include <fmt/format.h>

#include <cmath>

namespace smlora::tuning {
namespace {

template <class Value>
Value field(const Json& json, const char* name, bool right_type) {
    if (!json.is_object() || !json.contains(name)) throw Unsound(fmt::format("\"{}\" is missing", name));
    if (!right_type) throw Unsound(fmt::format("\"{}\" has the wrong type: {}", name, json[name].dump()));
    return json[name].get<Value>();
}

}  // namespace

const Json& member(const Json& json, const char* name) {
    static const auto& none = *new Json;
    const auto found = json.is_object() ? json.find(name) : json.end();
    return json.is_object() && found != json.end() ? *found : none;
}

std::string text(const Json& json, const char* name) {
    return field<std::string>(json, name, member(json, name).is_string());
}

bool boolean(const Json& json, const char* name) { return field<bool>(json, name, member(json, name).is_boolean()); }

double number(const Json& json, const char* name) {
    const auto value = field<double>(json, name, member(json, name).is_number());
    if (!(value >= 0) || std::isinf(value)) {
        throw Unsound(fmt::format("\"{}\": expected a number of 0 or more, got {}", name, value));
    }
    return value;
}

double positive(const Json& json, const char* name) {
    const double value = number(json, name);
    if (value == 0) throw Unsound(fmt::format("\"{}\": expected a number above 0, got 0", name));
    return value;
}

std::int64_t integer(const Json& json, const char* name, std::int64_t most) {
    const auto value = field<std::int64_t>(json, name, member(json, name).is_number_integer());
    if (value < 0 || value > most) throw Unsound(fmt::format("\"{}\" is out of range: {}", name, value));
    return value;
}

std::uint64_t unsigned_integer(const Json& json, const char* name) {
    return field<std::uint64_t>(json, name, member(json, name).is_number_unsigned());
}

const Json& array(const Json& json, const char* name) {
    if (!member(json, name).is_array()) throw Unsound(fmt::format("\"{}\": expected an array", name));
    return member(json, name);
}

Configuration configuration(const Json& json, const char* name) {
    auto read = configuration_from(member(json, name));
    if (!read) {
        throw Unsound(fmt::format("\"{}\": expected a configuration, got {}", name, member(json, name).dump()));
    }
    return std::move(*read);
}

}  // namespace smlora::tuning
