// A loaded kernel, and one launch of it.
#pragma once

#include "device/runtime.hpp"
#include "runtime/shared_memory.hpp"

#include <memory>
#include <string>
#include <vector>

namespace smlora::emulator {

/// A shared object of kernels in memory.
struct Code {
    std::string file;  ///< where it can be read
    unsigned long begin = 0;
    unsigned long end = 0;

    [[nodiscard]] bool holds(unsigned long address) const { return address >= begin && address < end; }
};

struct Kernel {
    std::string name;
    const Code* code = nullptr;
    void (*entry)(void* const* parameters) = nullptr;
    std::vector<unsigned> parameter_bytes;
    unsigned most_threads = 1024;  ///< __launch_bounds__
    Index3 cluster{0, 0, 0};       ///< __cluster_dims__; 0: a launch says
    unsigned most_dynamic_shared = 48 * 1024;
    SharedLayout shared;
};

struct Launch {
    Kernel* kernel = nullptr;
    Index3 grid{1, 1, 1};
    Index3 block{1, 1, 1};
    Index3 cluster{1, 1, 1};
    unsigned dynamic_shared = 0;
    void* const* parameters = nullptr;
    std::shared_ptr<const void> parameters_owner;
    /// It may begin before the kernel before it has ended.
    bool overlaps = false;
    /// Whether one of its threads has waited for that.
    std::shared_ptr<bool> waited = std::make_shared<bool>(false);
};

}  // namespace smlora::emulator
