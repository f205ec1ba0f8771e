#include "gpu/arch.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>

namespace smlora::gpu {
namespace {

constexpr int kib = 1024;

std::string supported_names() {
    std::string names;
    for (const Arch& arch : supported_archs()) {
        names += (names.empty() ? "" : ", ") + arch.name();
    }
    return names;
}

}  // namespace

std::string Arch::name() const {
    std::string text = fmt::format("sm_{}", number());
    if (suffix != '\0') {
        text += suffix;
    }
    return text;
}

const std::vector<Arch>& supported_archs() {
    // Shared memory: CUDA programming guide, "technical specifications per compute capability"; a block gets what a
    // multiprocessor has less the 1 KiB that the system keeps for each block. Multiprocessors: of the GPU named.
    static const auto& archs = *new std::vector<Arch>{
        {8, 0, '\0', 163 * kib, 164 * kib, 108},  // A100
        {8, 6, '\0', 99 * kib, 100 * kib, 84},    // RTX A6000
        {8, 7, '\0', 163 * kib, 164 * kib, 16},   // Jetson AGX Orin
        {8, 9, '\0', 99 * kib, 100 * kib, 142},   // L40S
        {9, 0, 'a', 227 * kib, 228 * kib, 132},   // H100 SXM, H200
        {10, 0, 'a', 227 * kib, 228 * kib, 148},  // B200
        {10, 3, 'a', 227 * kib, 228 * kib, 148},  // B300
        {12, 0, 'a', 99 * kib, 100 * kib, 188},   // RTX PRO 6000 Blackwell
        {12, 1, 'a', 99 * kib, 100 * kib, 48},    // GB10
    };
    return archs;
}

Arch arch_from_name(std::string_view name) {
    const auto& archs = supported_archs();
    const auto found = std::find_if(archs.begin(), archs.end(), [&](const Arch& arch) { return arch.name() == name; });
    if (found == archs.end()) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("arch: expected one of {}, got \"{}\"", supported_names(), name));
    }
    return *found;
}

Arch arch_of_capability(int major, int minor) {
    const auto& archs = supported_archs();
    const auto found = std::find_if(archs.begin(), archs.end(),
                                    [&](const Arch& arch) { return arch.major == major && arch.minor == minor; });
    if (found == archs.end()) {
        throw Error(ErrorCode::unsupported,
                    fmt::format("a GPU of compute capability {}.{} is not supported; smlora compiles for {}", major,
                                minor, supported_names()));
    }
    return *found;
}

}  // namespace smlora::gpu
