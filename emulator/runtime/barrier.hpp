// The 16 barriers of a block.
#pragma once

#include "device/runtime.hpp"

#include <array>
#include <string>
#include <vector>

namespace smlora::emulator {

class Block;
struct GpuThread;

class Barriers {
 public:
    explicit Barriers(Block& block) : block_(block) {}

    void reset() { barriers_ = {}; }

    /// The warp of the current thread arrives, all its lanes at once; `waiting` are those of them that wait. `count` is
    /// the number of threads that the barrier is for; 0: all warps that have not ended. True if it is complete and the
    /// current thread need not wait; the others have been woken.
    bool arrive(unsigned barrier, unsigned count, const std::vector<GpuThread*>& waiting, Where where);

    /// A warp has ended: a barrier of all threads may be complete without it.
    void warp_ended();

 private:
    struct Barrier {
        unsigned count = 0;
        unsigned arrived = 0;  ///< threads, in whole warps
        Where where;           ///< of the first
        std::vector<GpuThread*> waiting;
    };

    [[nodiscard]] bool complete(const Barrier& barrier) const;

    Block& block_;
    std::array<Barrier, 16> barriers_;
};

}  // namespace smlora::emulator
