#include "runtime/warp.hpp"

#include "runtime/scheduler.hpp"
#include "runtime/wgmma.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <cstring>

namespace smlora::emulator {
namespace {

std::string lanes(unsigned mask) { return fmt::format("{:#010x}", mask); }

bool same_place(const Where& a, const Where& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

}  // namespace

Warp::Warp(Scheduler& scheduler) : scheduler_(&scheduler), wgmmas_(std::make_shared<WgmmaQueue>()) {}

void Warp::add(GpuThread& thread) {
    threads_[thread.lane] = &thread;
    live_ |= 1U << thread.lane;
}

void Warp::meet(const Instruction& instruction, unsigned mask, void* operand, Perform perform, Where where) {
    const GpuThread& self = scheduler_->current();
    const unsigned bit = 1U << self.lane;
    if ((mask & bit) == 0) {
        scheduler_->fail(fmt::format("{} at {}:{}: lane {} is not in its own mask {}", instruction.name, where.file,
                                     where.line, self.lane, lanes(mask)));
    }
    std::size_t index = meetings_.size();
    for (std::size_t i = 0; i < meetings_.size(); ++i) {
        const Meeting& open = meetings_[i];
        const bool same = open.mask == mask && open.instruction == instruction &&
                          (!instruction.aligned || same_place(open.where, where));
        if (same && (open.arrived & bit) == 0) {
            index = i;
        } else if ((open.mask & bit) != 0 && (mask & open.arrived) != 0) {
            scheduler_->fail(fmt::format(
                "warp {} diverged: lane {} is in {} (mask {}) at {}:{}, which waits for lanes {} that are in {} (mask "
                "{}) at {}:{}",
                self.number / 32, self.lane, text(instruction), lanes(mask), where.file, where.line,
                lanes(open.arrived & mask), text(open.instruction), lanes(open.mask), open.where.file,
                open.where.line));
        }
    }
    if (index == meetings_.size()) meetings_.push_back({instruction, mask, 0, {}, perform, where});
    Meeting& meeting = meetings_[index];
    meeting.arrived |= bit;
    meeting.operands[self.lane] = operand;
    if (meeting.arrived == (meeting.mask & live_) && complete(index, true)) {
        scheduler_->yield_sometimes();
    } else {
        scheduler_->wait({instruction, {}, where});
    }
}

bool Warp::complete(std::size_t index, bool current_takes_part) {
    const Meeting meeting = meetings_[index];
    meetings_.erase(meetings_.begin() + static_cast<std::ptrdiff_t>(index));
    const GoOn go_on = meeting.perform(*this, meeting.operands);
    if (go_on != GoOn::all) return go_on == GoOn::current;
    const unsigned self = current_takes_part ? 1U << scheduler_->current().lane : 0U;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (((meeting.arrived & ~self) >> lane & 1U) != 0) scheduler_->wake(*threads_[lane]);
    }
    return true;
}

void Warp::end() {
    live_ &= ~(1U << scheduler_->current().lane);
    for (std::size_t i = meetings_.size(); i-- > 0;) {
        if (meetings_[i].arrived == (meetings_[i].mask & live_)) complete(i, false);
    }
    if (live_ == 0) wgmmas_->end();
}

}  // namespace smlora::emulator
