// JSON from files that anybody may have written.
#pragma once

#include <nlohmann/json.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace smlora::util {

/// Deeper than any that smlora writes or has to read: printing a value recurses, and a file must not exhaust the stack.
inline constexpr int most_json_depth = 64;

/// The longest that are known, of a model with a list of every tensor that is quantised, have some megabytes.
inline constexpr std::size_t most_json_bytes = std::size_t{64} << 20;

/// Far more than any has. A value takes up to some hundred bytes, so that this bounds the memory, too.
inline constexpr std::size_t most_json_values = std::size_t{1} << 20;

/// Of one object that keeps the order of its members, as each is looked for among all. Records have up to 24.
inline constexpr std::size_t most_ordered_members = 256;

/// What keeps to the limits above, in words.
inline constexpr std::string_view json_limits = "JSON of at most 64 MiB and 1048576 values, nested at most 64 deep";

/// A discarded value unless `text` is JSON within these limits; `throws` the JSON library's own exception if it is no
/// JSON.
template <class Json = nlohmann::json>
[[nodiscard]] Json parse_json(std::string_view text, bool throws = false) {
    if (text.size() > most_json_bytes) return Json(nlohmann::detail::value_t::discarded);
    using Event = typename Json::parse_event_t;
    constexpr bool ordered = std::is_same_v<Json, nlohmann::ordered_json>;
    bool exceeded = false;
    std::size_t values = 0;
    std::array<std::size_t, most_json_depth + 2> members{};  // of the open object at each depth
    const auto within_limits = [&](int depth, Event event, Json& /*value*/) {
        exceeded = exceeded || depth > most_json_depth;
        if (exceeded) return false;
        const auto at = static_cast<std::size_t>(depth);
        if (event == Event::object_start) members[at + 1] = 0;
        if (event == Event::key) exceeded = ++members[at] > most_ordered_members && ordered;
        const bool begins = event == Event::object_start || event == Event::array_start || event == Event::value;
        if (begins) exceeded = ++values > most_json_values;
        return !exceeded;
    };
    Json json = Json::parse(text, within_limits, throws);
    return exceeded ? Json(nlohmann::detail::value_t::discarded) : json;
}

/// For a message: as JSON, in ASCII, and no longer than a line.
template <class Json>
[[nodiscard]] std::string shown(const Json& value) {
    constexpr std::size_t most = 80;
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > most) text = text.substr(0, most) + "...";
    return text;
}

}  // namespace smlora::util
