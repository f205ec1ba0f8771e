// Which NVRTC made a kernel.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

namespace smlora::jit {

/// A release with its build number: the code generator changes between builds of one release.
struct CompilerVersion {
    int major = 0;
    int minor = 0;
    int build = 0;

    [[nodiscard]] std::string number() const;  ///< "13.0.88"
    [[nodiscard]] std::string name() const;    ///< "nvrtc 13.0.88", as keys and entries have it

    friend auto operator<=>(const CompilerVersion&, const CompilerVersion&) = default;
};

/// The inverse of number(); nothing for any other text.
[[nodiscard]] std::optional<CompilerVersion> compiler_version_from_number(std::string_view number);

}  // namespace smlora::jit
