#include "tuning/environment.hpp"

#include <fmt/format.h>

#include <string_view>

namespace smlora::tuning {
namespace {

/// The first `parts` numbers of a version.
std::string_view leading(std::string_view version, int parts) {
    std::size_t end = 0;
    for (int i = 0; i < parts && end < version.size(); ++i) end = version.find('.', end + (i > 0 ? 1 : 0));
    return version.substr(0, end);
}

bool same_version(std::string_view a, std::string_view b, int parts) {
    return a.empty() || b.empty() || leading(a, parts) == leading(b, parts);
}

}  // namespace

std::string mismatch(const Environment& recorded, const Environment& present) {
    const auto differs = [](std::string_view what, const auto& is, const auto& here) {
        return fmt::format("{}: recorded with {}, here {}", what, is, here);
    };
    if (recorded.gpu != present.gpu) return differs("GPU", recorded.gpu, present.gpu);
    if (recorded.arch != present.arch) return differs("architecture", recorded.arch, present.arch);
    if (recorded.multiprocessors != present.multiprocessors) {
        return differs("multiprocessors", recorded.multiprocessors, present.multiprocessors);
    }
    if (recorded.templates != present.templates) return differs("templates", recorded.templates, present.templates);
    if (!same_version(recorded.compiler, present.compiler, 2)) {
        return differs("compiler", recorded.compiler, present.compiler);
    }
    if (!same_version(recorded.driver, present.driver, 1)) return differs("driver", recorded.driver, present.driver);
    return {};
}

}  // namespace smlora::tuning
