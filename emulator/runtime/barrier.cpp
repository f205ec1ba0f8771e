#include "runtime/barrier.hpp"

#include "runtime/block.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace smlora::emulator {

bool Barriers::complete(const Barrier& barrier) const {
    return barrier.arrived == (barrier.count == 0 ? block_.live_warps() * 32 : barrier.count);
}

bool Barriers::arrive(unsigned number, unsigned count, const std::vector<GpuThread*>& waiting, Where where) {
    Scheduler& scheduler = block_.scheduler();
    const auto refuse = [&](const std::string& why) {
        scheduler.fail(fmt::format("barrier {} at {}:{}: {}", number, where.file, where.line, why));
    };
    if (number >= barriers_.size()) refuse("there are barriers 0 to 15");
    if (count % 32 != 0) refuse(fmt::format("{} threads are no whole number of warps", count));
    if (count > (block_.threads() + 31) / 32 * 32) {
        refuse(fmt::format("it waits for {} threads, the block has {}", count, block_.threads()));
    }
    Barrier& barrier = barriers_[number];
    if (barrier.arrived == 0) {
        barrier.count = count;
        barrier.where = where;
    } else if (barrier.count != count) {
        refuse(fmt::format("it is for {} threads here and for {} at {}:{} (0: all)", count, barrier.count,
                           barrier.where.file, barrier.where.line));
    }
    barrier.arrived += 32;
    barrier.waiting.insert(barrier.waiting.end(), waiting.begin(), waiting.end());
    if (!complete(barrier)) return waiting.empty();
    bool current_waits = false;
    for (GpuThread* thread : std::exchange(barrier, {}).waiting) {
        if (thread == &scheduler.current()) {
            current_waits = true;
        } else {
            scheduler.wake(*thread);
        }
    }
    return current_waits || waiting.empty();
}

void Barriers::warp_ended() {
    for (Barrier& barrier : barriers_) {
        if (barrier.arrived == 0 || barrier.count != 0 || !complete(barrier)) continue;
        for (GpuThread* thread : std::exchange(barrier, {}).waiting) block_.scheduler().wake(*thread);
    }
}

}  // namespace smlora::emulator
