#include "runtime/source_line.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdio>

namespace smlora::emulator {

std::string source_line(const Code& kernels, const void* code) {
    const unsigned long offset = reinterpret_cast<unsigned long>(code) - kernels.begin - 1;
    std::string text;
    const std::string command = fmt::format("addr2line -i -s -e {} {:#x} 2>/dev/null", kernels.file, offset);
    if (std::FILE* pipe = popen(command.c_str(), "r")) {
        std::array<char, 512> line{};
        // With -i, the callers into which the access was inlined follow.
        while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr) {
            text += (text.empty() ? "" : " < ") + std::string(line.data());
            text.erase(text.find_last_not_of('\n') + 1);
        }
        pclose(pipe);
    }
    return text.empty() || text.find('?') == 0 ? fmt::format("offset {:#x} of the kernel's code", offset) : text;
}

}  // namespace smlora::emulator
