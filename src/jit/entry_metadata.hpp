// What a kernel's cache entry says of it, beside the machine code.
#pragma once

#include "cache/entry.hpp"
#include "jit/kernel_compiler.hpp"

#include <cstdint>
#include <string>

namespace smlora::jit {

/// The entry of a compiled kernel. Its metadata has everything that went into the key, so that a person can tell what
/// the entry is and why it was not found, and the kernel's use of resources.
[[nodiscard]] cache::KernelEntry make_entry(const CompileRequest& request, const std::string& key,
                                            const CompiledKernel& kernel);

/// Whether an entry is the one of `request`: nothing but the name of a file ties an entry to its key otherwise, and
/// files can be renamed. False with the reason in `why`.
[[nodiscard]] bool is_entry_of(const cache::KernelEntry& entry, const CompileRequest& request, const std::string& key,
                               std::string& why);

/// An integer of the metadata, 0 if it has none of that name.
[[nodiscard]] std::int64_t metadata_integer(const cache::KernelEntry& entry, const char* name);

}  // namespace smlora::jit
