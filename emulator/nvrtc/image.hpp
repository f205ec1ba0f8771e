// A compiled kernel as what a cubin looks like from outside: the shared object itself, an ELF file, said to be for
// CUDA.
#pragma once

#include <cstddef>
#include <string>

namespace smlora::emulator {

/// Turns a shared object into an image for cuModuleLoadData, in place.
void dress(std::string& shared_object);

/// The shared object that `image` was made from; empty if it is none. `image` must be a whole ELF file, whose size is
/// read from its headers.
[[nodiscard]] std::string undress(const void* image);

}  // namespace smlora::emulator
