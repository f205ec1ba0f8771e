// The first part of a measurement: compiling candidates on several threads, for as long as there is time.
#pragma once

#include "tuning/device.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace smlora::util {
class ThreadPool;
}

namespace smlora::tuning {

/// What compiling a candidate showed.
struct Compilation {
    std::string refusal;         ///< why it cannot be used; empty: it can
    std::int64_t registers = 0;  ///< of the kernel that needs most
    std::int64_t spill_bytes = 0;
    double seconds = 0;              ///< summed over the parts that were compiled now
    std::size_t parts_compiled = 0;  ///< now; the others were found
    std::size_t parts_missing = 0;   ///< for lack of time

    [[nodiscard]] bool is_ready() const { return refusal.empty() && parts_missing == 0; }
};

struct CompiledCandidates {
    std::vector<Compilation> candidates;  ///< in the order in which they were asked for
    bool reference_is_ready = false;
};

/// Compiles `candidates` in their order, the reference behind the first of them, on `threads`. What is compiled already
/// is found first. A further kernel is begun only if it will end within `seconds` of the call, should it take as long
/// as the longest so far; the first, and those that other threads begin with it, whatever they take. So the call
/// passes `seconds` by one kernel's compile at most. `done` is told of each candidate that is ready or refused, and is
/// called by one thread at a time. What the device throws passes through when the compiles under way have ended.
[[nodiscard]] CompiledCandidates compile_candidates(
    Device& device, const std::vector<Candidate>& candidates, double seconds, util::ThreadPool& threads,
    const std::function<void(std::size_t index, const Compilation&)>& done);

}  // namespace smlora::tuning
