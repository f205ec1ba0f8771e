// Whether a block's shared memory fits a GPU.
#pragma once

#include "gpu/device.hpp"

#include <string>

namespace smlora::families {

/// Why the blocks that a tile's speed rests on do not fit one multiprocessor together; empty when they do.
[[nodiscard]] std::string shared_memory_refusal(unsigned shared_bytes, int blocks, const gpu::DeviceFacts& facts);

}  // namespace smlora::families
