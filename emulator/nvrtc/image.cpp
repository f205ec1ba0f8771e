#include "nvrtc/image.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>

namespace smlora::emulator {
namespace {

#if defined(__x86_64__)
constexpr Elf64_Half host_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half host_machine = EM_AARCH64;
#endif

void set_machine(std::string& image, Elf64_Half machine) {
    std::memcpy(image.data() + offsetof(Elf64_Ehdr, e_machine), &machine, sizeof(machine));
}

}  // namespace

void dress(std::string& shared_object) { set_machine(shared_object, EM_CUDA); }

std::string undress(const void* image) {
    Elf64_Ehdr header;
    std::memcpy(&header, image, sizeof(header));
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_CUDA || header.e_type != ET_DYN) {
        return {};
    }
    // The linker writes the section headers last.
    const std::size_t bytes = header.e_shoff + std::size_t{header.e_shnum} * header.e_shentsize;
    std::string shared_object(static_cast<const char*>(image), bytes);
    set_machine(shared_object, host_machine);
    return shared_object;
}

}  // namespace smlora::emulator
