// The 32 threads that meet in warp-wide instructions.
#pragma once

#include "runtime/instruction.hpp"

#include <array>
#include <memory>
#include <vector>

namespace smlora::emulator {

class Scheduler;
class WgmmaQueue;
struct GpuThread;

/// Who goes on when all have come; the others are woken by somebody else.
enum class GoOn { all, current, none };

/// What each lane brought; null for lanes that are not there.
using Operands = std::array<void*, 32>;

class Warp {
 public:
    explicit Warp(Scheduler& scheduler);

    void add(GpuThread& thread);
    /// Lanes that exist and have not ended.
    [[nodiscard]] unsigned live() const { return live_; }
    [[nodiscard]] GpuThread& thread(unsigned lane) { return *threads_[lane]; }
    [[nodiscard]] WgmmaQueue& wgmmas() { return *wgmmas_; }
    /// Of each thread; what setmaxnreg changes.
    [[nodiscard]] unsigned registers() const { return registers_; }
    void set_registers(unsigned count) { registers_ = count; }

    /// Called by each lane in `mask`; the last to come calls `perform`. A lane that is in another instruction while
    /// these wait for it is an error.
    using Perform = GoOn (*)(Warp& warp, const Operands& operands);
    void meet(const Instruction& instruction, unsigned mask, void* operand, Perform perform, Where where);

    /// The current thread has ended its kernel; those that waited for it go on without it.
    void end();

 private:
    struct Meeting {
        Instruction instruction;
        unsigned mask;
        unsigned arrived;
        Operands operands;
        Perform perform;
        Where where;
    };

    void join(Meeting& meeting, void* operand, Where where);
    bool complete(std::size_t index, bool current_takes_part);

    Scheduler* scheduler_;
    std::shared_ptr<WgmmaQueue> wgmmas_;
    unsigned registers_ = 0;
    std::array<GpuThread*, 32> threads_{};
    unsigned live_ = 0;
    std::vector<Meeting> meetings_;
};

}  // namespace smlora::emulator
