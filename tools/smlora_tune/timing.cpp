#include "smlora_tune/timing.hpp"

#include "gpu/driver.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

namespace smlora::tool {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr auto burst_idle = std::chrono::milliseconds(120);
constexpr int burst_rounds = 2;
constexpr int burst_warm_ups = 3;
constexpr int burst_repetitions = 20;
constexpr double sustained_warm_up_seconds = 0.35;
constexpr double sustained_seconds = 0.3;
// Twenty repetitions of something that takes seconds would be too long.
constexpr double round_bound_seconds = 3;
constexpr int least_repetitions = 3;
constexpr int most_repetitions = 5000;

// Larger than the L2 of any GPU, so that a pass goes to memory.
constexpr std::size_t occupy_bytes = std::size_t{256} << 20U;

double seconds_since(steady_clock::time_point start) { return duration<double>(steady_clock::now() - start).count(); }

/// CUDA events before the first and after each of a number of calls.
class Events {
 public:
    explicit Events(int count) : events_(static_cast<std::size_t>(count)) {
        for (CUevent& event : events_) SMLORA_CUDA(cuEventCreate, &event, CU_EVENT_DEFAULT);
    }
    ~Events() {
        for (CUevent event : events_) gpu::driver().cuEventDestroy(event);
    }
    Events(const Events&) = delete;
    Events& operator=(const Events&) = delete;

    void record(int index, Stream stream) {
        SMLORA_CUDA(cuEventRecord, events_[static_cast<std::size_t>(index)], static_cast<CUstream>(stream.handle));
    }

    [[nodiscard]] double seconds_between(int first, int last) const {
        float milliseconds = 0;
        SMLORA_CUDA(cuEventElapsedTime, &milliseconds, events_[static_cast<std::size_t>(first)],
                    events_[static_cast<std::size_t>(last)]);
        return static_cast<double>(milliseconds) * 1e-3;
    }

 private:
    std::vector<CUevent> events_;
};

}  // namespace

std::string_view name(Protocol protocol) { return protocol == Protocol::burst ? "burst" : "sustained"; }

Timer::Timer(Session& session, Protocol protocol) : session_(session), protocol_(protocol) {
    if (!session_.on_gpu()) return;
    occupied_ = Buffer(session_.engine(), occupy_bytes);
    occupied_.fill(0);
    const auto start = steady_clock::now();
    constexpr int passes = 8;
    const auto pointer = reinterpret_cast<CUdeviceptr>(occupied_.data());
    for (int i = 0; i < passes; ++i) {
        SMLORA_CUDA(cuMemsetD8Async, pointer, 0, occupy_bytes, static_cast<CUstream>(session_.stream().handle));
    }
    synchronize(session_.engine(), session_.stream());
    occupy_seconds_ = seconds_since(start) / passes;
}

Timings Timer::measure(const std::function<void(int)>& call) {
    const double estimate = first_call(call);
    Timings timings;
    if (protocol_ == Protocol::burst) {
        const int fitting = static_cast<int>(std::min<double>(burst_repetitions, round_bound_seconds / estimate));
        const int repetitions = std::max(least_repetitions, fitting);
        const int warm_ups = fitting == burst_repetitions ? burst_warm_ups : 1;
        const int rounds = fitting < least_repetitions ? 1 : burst_rounds;
        for (int round = 0; round < rounds; ++round) {
            std::this_thread::sleep_for(burst_idle);
            measure_round(call, warm_ups, repetitions, timings);
        }
        return timings;
    }
    const auto calls_in = [&](double seconds) {
        return std::clamp(static_cast<int>(std::ceil(seconds / estimate)), least_repetitions, most_repetitions);
    };
    measure_round(call, calls_in(sustained_warm_up_seconds), calls_in(sustained_seconds), timings);
    return timings;
}

double Timer::first_call(const std::function<void(int)>& call) {
    auto start = steady_clock::now();
    call(0);
    synchronize(session_.engine(), session_.stream());
    if (session_.on_gpu()) {
        // The first one compiled and loaded; the CPU has nothing of the kind to do.
        start = steady_clock::now();
        call(0);
        synchronize(session_.engine(), session_.stream());
    }
    return std::max(seconds_since(start), 1e-6);
}

void Timer::measure_round(const std::function<void(int)>& call, int warm_ups, int repetitions, Timings& timings) {
    int index = 0;
    const auto warm_up_start = steady_clock::now();
    for (int i = 0; i < warm_ups; ++i) call(index++);
    if (!session_.on_gpu()) {
        for (int i = 0; i < repetitions; ++i) {
            const auto start = steady_clock::now();
            call(index++);
            timings.seconds.push_back(seconds_since(start));
            timings.host_seconds.push_back(timings.seconds.back());
        }
        return;
    }
    // The GPU is kept busy until the host is ahead of it; else the gaps between calls would be counted as theirs.
    const double host_seconds = seconds_since(warm_up_start) / warm_ups;
    if (protocol_ == Protocol::burst) occupy(1.5 * host_seconds * repetitions);
    Events events(repetitions + 1);
    events.record(0, session_.stream());
    for (int i = 0; i < repetitions; ++i) {
        const auto start = steady_clock::now();
        call(index++);
        timings.host_seconds.push_back(seconds_since(start));
        events.record(i + 1, session_.stream());
    }
    synchronize(session_.engine(), session_.stream());
    for (int i = 0; i < repetitions; ++i) timings.seconds.push_back(events.seconds_between(i, i + 1));
}

void Timer::occupy(double seconds) {
    // A call that blocks the host (its first ones, while a pool grows) must not turn into seconds of waiting.
    const int passes = std::clamp(static_cast<int>(std::ceil(seconds / occupy_seconds_)), 1, 100);
    const auto pointer = reinterpret_cast<CUdeviceptr>(occupied_.data());
    for (int i = 0; i < passes; ++i) {
        SMLORA_CUDA(cuMemsetD8Async, pointer, 0, occupy_bytes, static_cast<CUstream>(session_.stream().handle));
    }
}

}  // namespace smlora::tool
