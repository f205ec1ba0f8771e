#include "runtime/machine.hpp"

#include "runtime/source_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace smlora::emulator {

Machine::Machine(const Model& model, std::uint64_t seed)
    : model_(model), seed_(seed), random_(seed), scheduler_(random_) {
    scheduler_.publish_current_in(&current);
}

void Machine::run(const Launch& launch) {
    // Each launch begins from the seed and its number, so that leaving one out does not change the others.
    random_ = Random(seed_ * 0x100000001b3U + ++launches_);
    scheduler_.set_style(Style::draw(random_));
    launch_ = &launch;
    const Index3 clusters = {launch.grid.x / launch.cluster.x, launch.grid.y / launch.cluster.y,
                             launch.grid.z / launch.cluster.z};
    std::vector<unsigned> order(std::size_t{clusters.x} * clusters.y * clusters.z);
    std::iota(order.begin(), order.end(), 0U);
    for (std::size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[random_.below(static_cast<unsigned>(i))]);
    }
    try {
        for (const unsigned cluster : order) {
            run_cluster(launch, cluster % clusters.x * launch.cluster.x,
                        cluster / clusters.x % clusters.y * launch.cluster.y,
                        cluster / clusters.x / clusters.y * launch.cluster.z);
        }
    } catch (const Failure& failure) {
        throw Failure(failure.kind(),
                      fmt::format("{}<<<({}, {}, {}), ({}, {}, {}), {}>>>, clusters of ({}, {}, {}): {}\n"
                                  "launch {} with SMLORA_EMULATOR_SEED={}",
                                  launch.kernel->name, launch.grid.x, launch.grid.y, launch.grid.z, launch.block.x,
                                  launch.block.y, launch.block.z, launch.dynamic_shared, launch.cluster.x,
                                  launch.cluster.y, launch.cluster.z, failure.what(), launches_, seed_));
    }
}

void Machine::run_cluster(const Launch& launch, unsigned first_x, unsigned first_y, unsigned first_z) {
    cluster_blocks_ = launch.cluster.x * launch.cluster.y * launch.cluster.z;
    while (blocks_.size() < cluster_blocks_) blocks_.push_back(std::make_unique<Block>(scheduler_));
    std::vector<GpuThread*> threads;
    for (unsigned rank = 0; rank < cluster_blocks_; ++rank) {
        const Index3 index = {first_x + rank % launch.cluster.x, first_y + rank / launch.cluster.x % launch.cluster.y,
                              first_z + rank / launch.cluster.x / launch.cluster.y};
        Block& block = *blocks_[rank];
        block.begin(*this, launch, index, rank);
        for (unsigned number = 0; number < block.threads(); ++number) threads.push_back(&block.thread(number));
    }
    for (GpuThread* thread : threads) {
        // One that ended the kernel before waits in the loop of run_thread() for the next.
        if (thread->machine != this || thread->inside_kernel) {
            thread->machine = this;
            thread->fiber.prepare(&Machine::run_thread, thread);
        }
    }
    tma_copies_.clear();
    cluster_barrier_ = {};
    now = 1;
    scheduler_.run(threads);
}

void Machine::run_thread(void* argument) {
    auto& thread = *static_cast<GpuThread*>(argument);
    for (;;) {
        const Launch& launch = *thread.machine->launch_;
        launch.kernel->entry(launch.parameters);
        thread.block->end_thread();
        thread.machine->scheduler_.end();
    }
}

char* Machine::shared(unsigned address, unsigned bytes, unsigned alignment, const char* what, Where where) {
    const unsigned rank = address >> 24;
    const unsigned offset = address & 0xffffffU;
    if (rank >= cluster_blocks_ || offset >= SharedMemory::window_bytes ||
        !blocks_[rank]->shared().holds(offset, bytes)) {
        scheduler_.fail(fmt::format("{} at {}:{}: {} bytes at shared address {:#x} are not within the block's {} bytes "
                                    "of dynamic shared memory or one static variable",
                                    what, where.file, where.line, bytes, address, launch_->dynamic_shared),
                        Failure::Kind::address);
    }
    if (offset % alignment != 0) {
        scheduler_.fail(fmt::format("{} at {}:{}: shared address {:#x} is not aligned to {} bytes", what, where.file,
                                    where.line, address, alignment),
                        Failure::Kind::address);
    }
    return blocks_[rank]->shared().window() + offset;
}

void Machine::check_global(const void* pointer, std::size_t bytes, unsigned alignment, const char* what, Where where) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    if (!memory_.holds(address, bytes)) {
        scheduler_.fail(fmt::format("{} at {}:{}: {} bytes at {:#x} are not in device memory: {}", what, where.file,
                                    where.line, bytes, address, memory_.describe(address)),
                        Failure::Kind::address);
    }
    if (address % alignment != 0) {
        scheduler_.fail(fmt::format("{} at {}:{}: address {:#x} is not aligned to {} bytes", what, where.file,
                                    where.line, address, alignment),
                        Failure::Kind::address);
    }
}

void Machine::note_store(unsigned address, unsigned bytes) {
    SharedStore* const stores = shared_of(address).stores();
    const unsigned offset = address & 0xffffffU;
    for (unsigned chunk = offset / 16; chunk <= (offset + bytes - 1) / 16; ++chunk) {
        stores[chunk] = {now, scheduler_.current().number};
    }
}

void* Machine::dynamic_shared(unsigned alignment) {
    SharedMemory& shared = scheduler_.current().block->shared();
    void* const memory = shared.dynamic(alignment);
    if (memory == nullptr && shared.dynamic_bytes() != 0) {
        scheduler_.fail(
            fmt::format("dynamic shared memory is declared with an alignment of {} and with another one", alignment));
    }
    return memory;
}

void* Machine::static_shared(const void* key, unsigned bytes, unsigned alignment) {
    SharedMemory& shared = scheduler_.current().block->shared();
    void* const memory = shared.variable(key, bytes, alignment);
    if (memory == nullptr ||
        launch_->kernel->shared.variable_bytes + shared.dynamic_bytes() > model_.shared_bytes_per_block) {
        scheduler_.fail(fmt::format("static shared memory: there is no room for {} more bytes beside {} dynamic ones",
                                    bytes, shared.dynamic_bytes()));
    }
    return memory;
}

unsigned Machine::shared_address(const void* pointer, Where where) {
    for (unsigned rank = 0; rank < cluster_blocks_; ++rank) {
        if (const auto offset = blocks_[rank]->shared().offset_of(pointer)) return rank << 24 | *offset;
    }
    scheduler_.fail(
        fmt::format("shared address at {}:{}: {} points to no shared memory", where.file, where.line, pointer));
}

void* Machine::shared_pointer(unsigned address, Where where) {
    return shared(address, 1, 1, "pointer to shared memory", where);
}

void Machine::check_access(unsigned long address, unsigned long bytes, bool store, const void* code) {
    const GpuThread& thread = scheduler_.current();
    if (address - thread.stack_low < thread.stack_bytes) return;
    const bool allowed = memory_.holds(address, bytes) || shared_holds(address, bytes) ||
                         (!store && launch_->kernel->code->holds(address));
    const bool aligned = (bytes & (bytes - 1)) != 0 || bytes > 16 || address % bytes == 0;
    if (allowed && aligned) return;
    scheduler_.fail(fmt::format("{} of {} bytes at {:#x} {}, at {}", store ? "store" : "load", bytes, address,
                                allowed ? "is not aligned" : "is out of bounds (" + describe(address) + ")",
                                source_line(*launch_->kernel->code, code)),
                    Failure::Kind::address);
}

bool Machine::shared_holds(unsigned long address, unsigned long bytes) const {
    for (unsigned rank = 0; rank < cluster_blocks_; ++rank) {
        const SharedMemory& shared = blocks_[rank]->shared();
        const auto offset = shared.offset_of(reinterpret_cast<const void*>(address));
        if (offset) return shared.holds(*offset, static_cast<unsigned>(bytes));
    }
    return false;
}

std::string Machine::describe(unsigned long address) const {
    for (unsigned rank = 0; rank < cluster_blocks_; ++rank) {
        Block& block = *blocks_[rank];
        if (const auto offset = block.shared().offset_of(reinterpret_cast<const void*>(address))) {
            return fmt::format("offset {} in shared memory, of which {} bytes are dynamic", *offset,
                               block.shared().dynamic_bytes());
        }
        for (unsigned number = 0; number < block.threads(); ++number) {
            const GpuThread& other = block.thread(number);
            if (address - other.stack_low < other.stack_bytes) {
                return fmt::format("local memory of thread {} of block {}", number, block.name());
            }
        }
    }
    return memory_.describe(address);
}

void Machine::require_whole_warp(const char* instruction, Where where) {
    if (scheduler_.current().warp->live() != 0xffffffffU) {
        scheduler_.fail(fmt::format("{} at {}:{}: lanes of the warp have ended or were never there", instruction,
                                    where.file, where.line));
    }
}

void Machine::preempt() { scheduler_.preempt(); }

long long Machine::clock() {
    clock_ += 1 + random_.below(100);
    return clock_;
}

void Machine::trap(const char* what, Where where) {
    scheduler_.fail(fmt::format("{} at {}:{}", what, where.file, where.line));
}

}  // namespace smlora::emulator
