#include "families/shared_memory.hpp"

#include <fmt/format.h>

namespace smlora::families {

std::string shared_memory_refusal(unsigned shared_bytes, int blocks, const gpu::DeviceFacts& facts) {
    constexpr unsigned reserved = 1024;  // the driver's share of each block
    if (shared_bytes > static_cast<unsigned>(facts.shared_bytes_per_block)) {
        return fmt::format("a block needs {} bytes of shared memory and {} has {}", shared_bytes, facts.name,
                           facts.shared_bytes_per_block);
    }
    const unsigned together = static_cast<unsigned>(blocks) * (shared_bytes + reserved);
    if (together > static_cast<unsigned>(facts.shared_bytes_per_multiprocessor)) {
        return fmt::format("{} blocks need {} bytes of a multiprocessor's shared memory and {} has {}", blocks,
                           together, facts.name, facts.shared_bytes_per_multiprocessor);
    }
    return {};
}

}  // namespace smlora::families
