#include "tuning/json_fields.hpp"

#include "util/json.hpp"
#include "util/printable.hpp"

#include <fmt/format.h>

#include <cmath>

namespace smlora::tuning {
namespace {

template <class Value>
Value field(const Json& json, const char* name, bool right_type) {
    if (!json.is_object() || !json.contains(name)) throw Unsound(fmt::format("\"{}\" is missing", name));
    if (!right_type) throw Unsound(fmt::format("\"{}\" has the wrong type: {}", name, util::shown(json[name])));
    return json[name].get<Value>();
}

}  // namespace

const Json& member(const Json& json, const char* name) {
    static const auto& none = *new Json;
    const auto found = json.is_object() ? json.find(name) : json.end();
    return json.is_object() && found != json.end() ? *found : none;
}

std::string text(const Json& json, const char* name) {
    auto value = field<std::string>(json, name, member(json, name).is_string());
    if (!util::is_printable(value) || value.size() > most_text) {
        throw Unsound(fmt::format("\"{}\": expected a line of text, got {}", name, util::shown(member(json, name))));
    }
    return value;
}

std::string message(const Json& json, const char* name) {
    return util::printable(field<std::string>(json, name, member(json, name).is_string()), most_message);
}

bool boolean(const Json& json, const char* name) { return field<bool>(json, name, member(json, name).is_boolean()); }

double number(const Json& json, const char* name, double most) {
    const auto value = field<double>(json, name, member(json, name).is_number());
    if (!(value >= 0) || value > most) {
        throw Unsound(fmt::format("\"{}\": expected a number from 0 to {}, got {}", name, most, value));
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

const Json& array(const Json& json, const char* name, std::size_t most) {
    const Json& values = member(json, name);
    if (!values.is_array()) throw Unsound(fmt::format("\"{}\": expected an array", name));
    if (values.size() > most) {
        throw Unsound(fmt::format("\"{}\": expected at most {} items, got {}", name, most, values.size()));
    }
    return values;
}

Configuration configuration(const Json& json, const char* name) {
    auto read = configuration_from(member(json, name));
    if (!read) {
        throw Unsound(fmt::format("\"{}\": expected a configuration, got {}", name, util::shown(member(json, name))));
    }
    return std::move(*read);
}

}  // namespace smlora::tuning
