// One block of threads.
#pragma once

#include "runtime/barrier.hpp"
#include "runtime/gpu_thread.hpp"
#include "runtime/kernel.hpp"
#include "runtime/scheduler.hpp"
#include "runtime/shared_memory.hpp"
#include "runtime/warp.hpp"

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace smlora::emulator {

class Cluster;

class Block {
 public:
    Block(Cluster& cluster, Scheduler& scheduler) : cluster_(cluster), scheduler_(scheduler) {}
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    /// Becomes block `index` of the grid, of rank `rank` in its cluster; its threads are ready to run.
    void begin(Machine& machine, const Launch& launch, Index3 index, unsigned rank);
    /// The current thread has ended the kernel.
    void end_thread();

    [[nodiscard]] Cluster& cluster() { return cluster_; }
    [[nodiscard]] Scheduler& scheduler() { return scheduler_; }
    [[nodiscard]] unsigned rank() const { return rank_; }
    [[nodiscard]] std::string name() const;
    /// Of the last begin(), in order.
    [[nodiscard]] GpuThread& thread(unsigned number) { return *threads_[number]; }
    [[nodiscard]] unsigned threads() const { return count_; }
    [[nodiscard]] unsigned live_warps() const;
    [[nodiscard]] Warp& warp(unsigned number) { return warps_[number]; }
    /// Changes the registers of each thread of a warp; false if not enough are free.
    bool share_registers(Warp& warp, unsigned count);
    [[nodiscard]] Barriers& barriers() { return barriers_; }
    [[nodiscard]] SharedMemory& shared() { return shared_; }

 private:
    void add_threads(unsigned count);

    Cluster& cluster_;
    Scheduler& scheduler_;
    Index3 index_{};
    unsigned rank_ = 0;
    unsigned count_ = 0;
    unsigned free_registers_ = 0;                      ///< of the launch's, given up by warps and not taken
    std::vector<std::unique_ptr<GpuThread>> threads_;  ///< kept from block to block, with their stacks
    std::deque<Warp> warps_;
    Barriers barriers_{*this};
    SharedMemory shared_;
};

}  // namespace smlora::emulator
