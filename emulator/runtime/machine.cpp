#include "runtime/machine.hpp"

#include "runtime/source_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace smlora::emulator {

Machine::Machine(const Model& model, std::uint64_t seed)
    : model_(model), seed_(seed), random_(seed), scheduler_(random_) {
    scheduler_.publish_current_in(&current);
}

std::vector<Index3> Machine::shuffled_clusters(const Launch& launch) {
    std::vector<Index3> first;
    for (unsigned z = 0; z < launch.grid.z; z += launch.cluster.z) {
        for (unsigned y = 0; y < launch.grid.y; y += launch.cluster.y) {
            for (unsigned x = 0; x < launch.grid.x; x += launch.cluster.x) first.push_back({x, y, z});
        }
    }
    for (std::size_t i = first.size(); i > 1; --i) {
        std::swap(first[i - 1], first[random_.below(static_cast<unsigned>(i))]);
    }
    return first;
}

void Machine::run(const Launch& launch) {
    if (!launch.overlaps) finish();
    // Each launch begins from the seed and its number, so that leaving one out does not change the others.
    random_ = Random(seed_ * 0x100000001b3U + ++launches_);
    std::vector<Index3> left = shuffled_clusters(launch);
    const auto take = [&](std::size_t count) {
        std::vector<Index3> taken(left.end() - static_cast<std::ptrdiff_t>(count), left.end());
        left.resize(left.size() - count);
        return taken;
    };
    if (held_) {
        constexpr std::size_t most_early = 4;
        const std::size_t early = random_.below(static_cast<unsigned>(std::min(left.size(), most_early)) + 1);
        const Held held = *std::exchange(held_, std::nullopt);
        run_clusters(launch, take(early), &held);
        check_waited(held.launch);
    }
    const bool hold = model_.major >= 9 && random_.once_in(2);
    while (left.size() > (hold ? 1 : 0)) run_clusters(launch, take(1), nullptr);
    if (left.empty()) {
        check_waited(launch);
    } else {
        held_ = {launch, left.front()};
    }
}

void Machine::finish() {
    if (!held_) return;
    const Held held = *std::exchange(held_, std::nullopt);
    run_clusters(held.launch, {held.first}, nullptr);
    check_waited(held.launch);
}

void Machine::check_waited(const Launch& launch) const {
    if (!launch.overlaps || *launch.waited) return;
    throw Failure(Failure::Kind::misuse,
                  fmt::format("{} may begin before the kernel before it has ended, and no thread of it waits for that "
                              "(griddepcontrol.wait): what follows on the stream could begin too early",
                              launch.kernel->name));
}

void Machine::run_clusters(const Launch& launch, const std::vector<Index3>& first, const Held* held) {
    scheduler_.set_style(Style::draw(random_));
    const std::size_t count = first.size() + (held == nullptr ? 0 : 1);
    while (clusters_.size() < count) clusters_.push_back(std::make_unique<Cluster>(*this));
    Cluster* const earlier = held == nullptr ? nullptr : clusters_[first.size()].get();
    if (held != nullptr) earlier->begin(held->launch, held->first, nullptr);
    for (std::size_t i = 0; i < first.size(); ++i) clusters_[i]->begin(launch, first[i], earlier);
    std::vector<GpuThread*> threads;
    for (std::size_t i = 0; i < count; ++i) {
        for (unsigned rank = 0; rank < clusters_[i]->count(); ++rank) {
            Block& block = clusters_[i]->block(rank);
            for (unsigned number = 0; number < block.threads(); ++number) threads.push_back(&block.thread(number));
        }
    }
    for (GpuThread* thread : threads) {
        // One that ended the kernel before waits in the loop of run_thread() for the next.
        if (thread->machine != this || thread->inside_kernel) {
            thread->machine = this;
            thread->fiber.prepare(&Machine::run_thread, thread);
        }
    }
    acting_for_ = nullptr;
    now = 1;
    try {
        scheduler_.run(threads);
    } catch (const Failure& failure) {
        acting_for_ = nullptr;
        const Launch& failed = cluster().launch();
        throw Failure(failure.kind(),
                      fmt::format("{}<<<({}, {}, {}), ({}, {}, {}), {}>>>, clusters of ({}, {}, {}): {}\n"
                                  "launch {} with SMLORA_EMULATOR_SEED={}",
                                  failed.kernel->name, failed.grid.x, failed.grid.y, failed.grid.z, failed.block.x,
                                  failed.block.y, failed.block.z, failed.dynamic_shared, failed.cluster.x,
                                  failed.cluster.y, failed.cluster.z, failure.what(), launches_, seed_));
    }
}

void Machine::run_thread(void* argument) {
    auto& thread = *static_cast<GpuThread*>(argument);
    for (;;) {
        Cluster& cluster = thread.block->cluster();
        cluster.wait_for_begin();
        cluster.launch().kernel->entry(cluster.launch().parameters);
        cluster.end_thread();
        thread.machine->scheduler_.end();
    }
}

char* Machine::shared(unsigned address, unsigned bytes, unsigned alignment, const char* what, Where where) {
    const unsigned rank = address >> 24;
    const unsigned offset = address & 0xffffffU;
    if (rank >= cluster().count() || offset >= SharedMemory::window_bytes ||
        !cluster().shared(rank).holds(offset, bytes)) {
        scheduler_.fail(fmt::format("{} at {}:{}: {} bytes at shared address {:#x} are not within the block's {} bytes "
                                    "of dynamic shared memory or one static variable",
                                    what, where.file, where.line, bytes, address, cluster().launch().dynamic_shared),
                        Failure::Kind::address);
    }
    if (offset % alignment != 0) {
        scheduler_.fail(fmt::format("{} at {}:{}: shared address {:#x} is not aligned to {} bytes", what, where.file,
                                    where.line, address, alignment),
                        Failure::Kind::address);
    }
    return cluster().shared(rank).window() + offset;
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
        cluster().launch().kernel->shared.variable_bytes + shared.dynamic_bytes() > model_.shared_bytes_per_block) {
        scheduler_.fail(fmt::format("static shared memory: there is no room for {} more bytes beside {} dynamic ones",
                                    bytes, shared.dynamic_bytes()));
    }
    return memory;
}

unsigned Machine::shared_address(const void* pointer, Where where) {
    for (unsigned rank = 0; rank < cluster().count(); ++rank) {
        if (const auto offset = cluster().shared(rank).offset_of(pointer)) return rank << 24 | *offset;
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
                         (!store && cluster().launch().kernel->code->holds(address));
    const bool aligned = (bytes & (bytes - 1)) != 0 || bytes > 16 || address % bytes == 0;
    if (allowed && aligned) return;
    scheduler_.fail(fmt::format("{} of {} bytes at {:#x} {}, at {}", store ? "store" : "load", bytes, address,
                                allowed ? "is not aligned" : "is out of bounds (" + describe(address) + ")",
                                source_line(*cluster().launch().kernel->code, code)),
                    Failure::Kind::address);
}

bool Machine::shared_holds(unsigned long address, unsigned long bytes) const {
    for (unsigned rank = 0; rank < cluster().count(); ++rank) {
        const SharedMemory& shared = cluster().shared(rank);
        const auto offset = shared.offset_of(reinterpret_cast<const void*>(address));
        if (offset) return shared.holds(*offset, static_cast<unsigned>(bytes));
    }
    return false;
}

std::string Machine::describe(unsigned long address) const {
    for (unsigned rank = 0; rank < cluster().count(); ++rank) {
        Block& block = cluster().block(rank);
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

void Machine::wait_for_flag(const unsigned* flag, Where where) {
    check_global(flag, sizeof *flag, sizeof *flag, "ld.acquire", where);
    while (*static_cast<const volatile unsigned*>(flag) == 0) {
        scheduler_.wait_for_change({{"ld.acquire", false, 0}, " for a flag", where});
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
