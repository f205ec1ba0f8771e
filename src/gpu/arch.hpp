// GPU architectures as compile targets.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace smlora::gpu {

/// A target such as sm_80 or sm_90a, with the facts that choosing tiles needs when no such GPU is there to be asked.
struct Arch {
    int major = 0;
    int minor = 0;
    char suffix = '\0';  ///< 'a' for architecture-specific features, else none

    int shared_bytes_per_block = 0;  ///< the opt-in maximum
    int shared_bytes_per_multiprocessor = 0;
    int multiprocessors = 0;  ///< of a typical GPU; a GPU that is there is asked instead

    [[nodiscard]] int number() const { return major * 10 + minor; }
    [[nodiscard]] std::string name() const;  ///< "sm_90a"
    friend bool operator==(const Arch& a, const Arch& b) {
        return a.major == b.major && a.minor == b.minor && a.suffix == b.suffix;
    }
};

/// The architectures that smlora compiles for: sm_80 sm_86 sm_87 sm_89 sm_90a sm_100a sm_103a sm_120a sm_121a.
[[nodiscard]] const std::vector<Arch>& supported_archs();

/// By name. Throws Error{invalid_argument} that lists the supported ones.
[[nodiscard]] Arch arch_from_name(std::string_view name);

/// By compute capability. Throws Error{unsupported}.
[[nodiscard]] Arch arch_of_capability(int major, int minor);

}  // namespace smlora::gpu
