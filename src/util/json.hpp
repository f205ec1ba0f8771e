// JSON from files that anybody may have written.
#pragma once

#include <nlohmann/json.hpp>

#include <string_view>

namespace smlora::util {

/// Deeper than any that smlora writes or has to read: printing a value recurses, and a file must not exhaust the stack.
inline constexpr int most_json_depth = 64;

/// A discarded value unless `text` is JSON nested no deeper than that; `throws` the JSON library's own exception if it
/// is none.
template <class Json = nlohmann::json>
[[nodiscard]] Json parse_json(std::string_view text, bool throws = false) {
    bool too_deep = false;
    const auto shallow = [&](int depth, typename Json::parse_event_t /*event*/, Json& /*value*/) {
        too_deep = too_deep || depth > most_json_depth;
        return !too_deep;
    };
    Json json = Json::parse(text, shallow, throws);
    return too_deep ? Json(nlohmann::detail::value_t::discarded) : json;
}

}  // namespace smlora::util
