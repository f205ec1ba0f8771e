// The little that is read from ELF files: a library's build id, a cubin's kernel.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace smlora::jit {

/// The GNU build id of a shared library, in hexadecimal digits; nothing if it has none or is no ELF file. Reads the
/// headers only, not the whole file.
[[nodiscard]] std::optional<std::string> elf_build_id(const std::filesystem::path& file);

struct CubinKernel {
    unsigned args_bytes = 0;  ///< size of its parameters
};

/// Looks at the kernel `symbol` in a cubin. Nothing, with the reason in `why`, unless `cubin` is a sound 64-bit ELF
/// file for CUDA that defines a function of that name with code and says how large its parameters are. Any bytes are
/// safe.
[[nodiscard]] std::optional<CubinKernel> find_kernel(std::string_view cubin, std::string_view symbol, std::string& why);

/// 32 hexadecimal digits of what a cubin does on a GPU: code, constants, the sizes of shared and local memory and the
/// registers, without names, symbols, notes and objects that no code reads, so that it is the same for kernels that
/// differ in nothing else. Nothing unless it is a sound ELF file with code.
[[nodiscard]] std::optional<std::string> machine_code_digest(std::string_view cubin);

}  // namespace smlora::jit
