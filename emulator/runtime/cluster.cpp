#include "runtime/cluster.hpp"

#include "runtime/machine.hpp"

#include <algorithm>
#include <utility>

namespace smlora::emulator {

void Cluster::begin(const Launch& launch, Index3 first, Cluster* earlier) {
    launch_ = &launch;
    earlier_ = earlier;
    const Index3 shape = launch.cluster;
    count_ = shape.x * shape.y * shape.z;
    while (blocks_.size() < count_) blocks_.push_back(std::make_unique<Block>(*this, machine_.scheduler()));
    copies_.clear();
    warps_at_barrier_ = 0;
    at_barrier_.clear();
    later_.clear();
    lets_next_begin_.assign(count_, false);
    threads_left_.clear();
    for (unsigned rank = 0; rank < count_; ++rank) {
        const Index3 index = {first.x + rank % shape.x, first.y + rank / shape.x % shape.y,
                              first.z + rank / shape.x / shape.y};
        blocks_[rank]->begin(machine_, launch, index, rank);
        threads_left_.push_back(blocks_[rank]->threads());
    }
}

bool Cluster::arrive(const std::vector<GpuThread*>& waiting) {
    Scheduler& scheduler = machine_.scheduler();
    ++warps_at_barrier_;
    at_barrier_.insert(at_barrier_.end(), waiting.begin(), waiting.end());
    unsigned warps = 0;
    for (unsigned rank = 0; rank < count_; ++rank) warps += blocks_[rank]->live_warps();
    if (warps_at_barrier_ < warps) return false;
    warps_at_barrier_ = 0;
    bool current_waits = false;
    for (GpuThread* thread : std::exchange(at_barrier_, {})) {
        if (thread == &scheduler.current()) {
            current_waits = true;
        } else {
            scheduler.wake(*thread);
        }
    }
    return current_waits;
}

void Cluster::wake_later() {
    for (GpuThread* thread : std::exchange(later_, {})) machine_.scheduler().wake(*thread);
}

void Cluster::wait_for_begin() {
    if (earlier_ == nullptr) return;
    const auto& let = earlier_->lets_next_begin_;
    while (!std::all_of(let.begin(), let.end(), [](bool block) { return block; })) {
        earlier_->later_.push_back(&machine_.scheduler().current());
        machine_.scheduler().wait({{"the begin of a launch that overlaps with the one before"}, {}, {}});
    }
}

void Cluster::wait_for_end_of_earlier(Where where) {
    *launch_->waited = true;
    if (earlier_ == nullptr) return;
    const auto& left = earlier_->threads_left_;
    while (std::any_of(left.begin(), left.end(), [](unsigned threads) { return threads > 0; })) {
        earlier_->later_.push_back(&machine_.scheduler().current());
        machine_.scheduler().wait({{"griddepcontrol.wait"}, {}, where});
    }
}

void Cluster::let_next_begin() {
    lets_next_begin_[machine_.scheduler().current().block->rank()] = true;
    wake_later();
}

void Cluster::end_thread() {
    Block& block = *machine_.scheduler().current().block;
    block.end_thread();
    if (--threads_left_[block.rank()] > 0) return;
    lets_next_begin_[block.rank()] = true;
    wake_later();
}

}  // namespace smlora::emulator
