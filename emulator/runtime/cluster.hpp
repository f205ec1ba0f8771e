// The blocks of a cluster, which run together.
#pragma once

#include "runtime/block.hpp"
#include "runtime/kernel.hpp"
#include "runtime/tma.hpp"

#include <memory>
#include <vector>

namespace smlora::emulator {

class Machine;

class Cluster {
 public:
    explicit Cluster(Machine& machine) : machine_(machine) {}

    /// Becomes the cluster of `launch` whose first block is `first`. With `earlier`, a cluster of the kernel before:
    /// its threads begin when that has let them, and may wait until it has ended.
    void begin(const Launch& launch, Index3 first, Cluster* earlier);

    [[nodiscard]] const Launch& launch() const { return *launch_; }
    [[nodiscard]] unsigned count() const { return count_; }
    [[nodiscard]] Block& block(unsigned rank) { return *blocks_[rank]; }
    [[nodiscard]] SharedMemory& shared(unsigned rank) { return blocks_[rank]->shared(); }
    void add_copy(std::unique_ptr<TmaCopy> copy) { copies_.push_back(std::move(copy)); }

    /// The current thread's warp arrives at the barrier of the cluster; `waiting` are its lanes. Like Barriers::arrive.
    bool arrive(const std::vector<GpuThread*>& waiting);

    // Called by threads, in this order.
    void wait_for_begin();
    void wait_for_end_of_earlier(Where where);
    void let_next_begin();
    void end_thread();

 private:
    void wake_later();

    Machine& machine_;
    const Launch* launch_ = nullptr;
    std::vector<std::unique_ptr<Block>> blocks_;  ///< kept from launch to launch, for their threads' stacks
    unsigned count_ = 0;
    std::vector<std::unique_ptr<TmaCopy>> copies_;
    unsigned warps_at_barrier_ = 0;
    std::vector<GpuThread*> at_barrier_;
    Cluster* earlier_ = nullptr;
    std::vector<bool> lets_next_begin_;  ///< of each block: it has said so, or has ended
    std::vector<unsigned> threads_left_;
    std::vector<GpuThread*> later_;  ///< threads of other clusters that wait for this one to let them begin, or to end
};

}  // namespace smlora::emulator
