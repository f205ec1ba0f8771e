// Timing operations: by CUDA events on a GPU, by the clock on the CPU.
#pragma once

#include "smlora_tune/session.hpp"

#include <smlora/memory.hpp>

#include <functional>
#include <string_view>
#include <vector>

namespace smlora::tool {

/// A GPU that has been idle runs faster than one that is hot and at its power limit, so figures compare only within one
/// protocol.
enum class Protocol {
    burst,      ///< 120 ms idle, 3 calls unmeasured, 20 measured; twice
    sustained,  ///< 350 ms back to back unmeasured, 300 ms measured
};

[[nodiscard]] std::string_view name(Protocol protocol);

struct Timings {
    std::vector<double> seconds;       ///< of each measured call, on the device
    std::vector<double> host_seconds;  ///< until each of them had returned
};

/// Measures on a session's stream.
class Timer {
 public:
    Timer(Session& session, Protocol protocol);

    /// `call(i)` enqueues the i-th repetition. It is run once, unmeasured, before anything else: that compiles and
    /// loads what it needs. Calls that take long are measured less often, but at least three times.
    [[nodiscard]] Timings measure(const std::function<void(int)>& call);

 private:
    double first_call(const std::function<void(int)>& call);
    void measure_round(const std::function<void(int)>& call, int warm_ups, int repetitions, Timings& timings);
    void occupy(double seconds);

    Session& session_;
    Protocol protocol_;
    Buffer occupied_;
    double occupy_seconds_ = 0;  // of one pass over occupied_
};

}  // namespace smlora::tool
