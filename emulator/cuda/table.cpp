// Refers to every function that smlora looks for.
#include "cuda/exports.hpp"

namespace smlora::emulator {

#define SMLORA_ADDRESS(function) reinterpret_cast<void*>(&::function),
__attribute__((used)) void* const functions[] = {SMLORA_CUDA_FUNCTIONS(SMLORA_ADDRESS)};
#undef SMLORA_ADDRESS

}  // namespace smlora::emulator
