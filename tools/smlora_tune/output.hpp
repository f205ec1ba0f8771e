// What the program writes: results to stdout, progress and context to stderr. A result that cannot be written is a
// failure; a remark that cannot be written is not.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string_view>
#include <utility>

namespace smlora::tool {

/// Call first of all: takes the places of standard streams that the caller has closed, so that no file of the cache
/// gets the number of one and results inside it. Writing to such a stream fails.
void occupy_closed_streams();

/// Writes on stdout. Throws Error{io} when stdout does not take it; what is still buffered shows in finish_results().
void write_results(std::string_view text);

/// Whatever has been written on stdout by any means is out when this returns. Throws Error{io} if it could not be.
void finish_results();

/// Writes on `stream`, whether it works or not.
void write_remark(std::FILE* stream, std::string_view text) noexcept;

template <class... Values>
void print_results(fmt::format_string<Values...> format, Values&&... values) {
    write_results(fmt::format(format, std::forward<Values>(values)...));
}

/// On stderr.
template <class... Values>
void print_remark(fmt::format_string<Values...> format, Values&&... values) {
    write_remark(stderr, fmt::format(format, std::forward<Values>(values)...));
}

}  // namespace smlora::tool
