// JSON from files that anybody may have written.
#pragma once

#include <nlohmann/json.hpp>

#include <string_view>

namespace smlora::util {

/// A discarded value unless `text` is JSON nested no deeper than any that smlora writes: printing a value recurses, and
/// a file must not exhaust the stack.
template <class Json = nlohmann::json>
[[nodiscard]] Json parse_json(std::string_view text) {
    constexpr int most_depth = 64;
    bool too_deep = false;
    const auto shallow = [&](int depth, typename Json::parse_event_t /*event*/, Json& /*value*/) {
        too_deep = too_deep || depth > most_depth;
        return !too_deep;
    };
    Json json = Json::parse(text, shallow, false);
    return too_deep ? Json(nlohmann::detail::value_t::discarded) : json;
}

}  // namespace smlora::util
