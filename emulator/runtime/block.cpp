#include "runtime/block.hpp"

#include "runtime/wgmma.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace smlora::emulator {
namespace {

// Kernels at -O1 keep in memory what a GPU has in registers: 255 of them, and copies.
constexpr std::size_t stack_bytes = 128 * 1024;

}  // namespace

void Block::add_threads(unsigned count) {
    while (threads_.size() < count) threads_.push_back(std::make_unique<GpuThread>(stack_bytes));
}

void Block::begin(Machine& machine, const Launch& launch, Index3 index, unsigned rank) {
    index_ = index;
    rank_ = rank;
    count_ = launch.block.x * launch.block.y * launch.block.z;
    add_threads(count_);
    barriers_.reset();
    warps_.clear();
    // As many as ptxas may give each thread of the largest block that the kernel is compiled for.
    const unsigned registers = std::min(65536 / launch.kernel->most_threads / 8 * 8, 248U);
    free_registers_ = 0;
    for (unsigned warp = 0; warp < (count_ + 31) / 32; ++warp) {
        warps_.emplace_back(scheduler_);
        warps_.back().set_registers(registers);
    }
    shared_.begin(launch.kernel->shared, launch.dynamic_shared);
    const Style& style = scheduler_.style();
    bool starved = false;
    for (unsigned number = 0; number < count_; ++number) {
        GpuThread& thread = *threads_[number];
        thread.thread_idx = {number % launch.block.x, number / launch.block.x % launch.block.y,
                             number / launch.block.x / launch.block.y};
        thread.block_idx = index;
        thread.block_dim = launch.block;
        thread.grid_dim = launch.grid;
        thread.shared_window = reinterpret_cast<unsigned long>(shared_.window());
        thread.shared_usable = shared_.usable();
        thread.shared_stores = shared_.stores();
        thread.fenced = 0;
        thread.block = this;
        thread.number = number;
        thread.lane = number % 32;
        thread.warp = &warps_[number / 32];
        if (number % (style.starve_warps * 32) == 0) starved = scheduler_.random().once_in(style.starve_one_in);
        thread.starved = starved;
        thread.copies.clear();
        thread.warp->add(thread);
    }
    for (Warp& warp : warps_) warp.wgmmas().begin(machine, warp);
}

bool Block::share_registers(Warp& warp, unsigned count) {
    const unsigned had = warp.registers();
    if (count > had && (count - had) * 32 > free_registers_) return false;
    free_registers_ -= (count - had) * 32;  // wraps to more when registers are given up
    warp.set_registers(count);
    return true;
}

void Block::end_thread() {
    GpuThread& thread = scheduler_.current();
    thread.copies.finish();
    thread.warp->end();
    if (thread.warp->live() == 0) barriers_.warp_ended();
}

std::string Block::name() const { return fmt::format("({}, {}, {})", index_.x, index_.y, index_.z); }

unsigned Block::live_warps() const {
    return static_cast<unsigned>(
        std::count_if(warps_.begin(), warps_.end(), [](const Warp& warp) { return warp.live() != 0; }));
}

}  // namespace smlora::emulator
