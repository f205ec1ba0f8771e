// What every harness is made of: one function that reads bytes that anybody may have written, and aborts when a promise
// does not hold. A fuzzer calls it (tests/fuzz/run), or the program of replay.cpp.
#pragma once

#include "util/printable.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);

namespace smlora::fuzz {

inline void require(bool holds, std::string_view promise, std::string_view what = "") {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %.*s\n%.*s\n", static_cast<int>(promise.size()), promise.data(),
                 static_cast<int>(what.size()), what.data());
    std::abort();
}

/// What is said of a file is a line that a terminal shows and does not obey.
inline void require_message(const std::string& message) {
    require(!message.empty(), "whatever is refused is refused with a reason");
    require(message.size() < 2000, "no message is longer than a paragraph", message);
    require(util::is_printable(message), "no message has characters that a terminal obeys", message);
}

inline std::string_view text_of(const std::uint8_t* bytes, std::size_t size) {
    return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace smlora::fuzz
