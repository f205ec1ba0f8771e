#include "jit/compiler_version.hpp"

#include <fmt/format.h>

#include <charconv>

namespace smlora::jit {

std::string CompilerVersion::number() const { return fmt::format("{}.{}.{}", major, minor, build); }

std::string CompilerVersion::name() const { return "nvrtc " + number(); }

std::optional<CompilerVersion> compiler_version_from_number(std::string_view number) {
    CompilerVersion version;
    const char* position = number.data();
    const char* const end = number.data() + number.size();
    for (int* part : {&version.major, &version.minor, &version.build}) {
        if (part != &version.major) {
            if (position == end || *position != '.') {
                return std::nullopt;
            }
            ++position;
        }
        const auto [stop, error] = std::from_chars(position, end, *part);
        if (error != std::errc{} || *part < 0) {
            return std::nullopt;
        }
        position = stop;
    }
    // Also refuses leading zeros, which from_chars lets through.
    return position == end && version.number() == number && version.major > 0 ? std::optional(version) : std::nullopt;
}

}  // namespace smlora::jit
