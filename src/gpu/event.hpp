// CUDA events, for timing.
#pragma once

#include <cuda.h>

namespace smlora::gpu {

/// An event of the current context.
class Event {
 public:
    Event();
    ~Event();
    Event(Event&& other) noexcept : event_(other.event_) { other.event_ = nullptr; }
    Event& operator=(Event&&) = delete;

    void record(CUstream stream);
    /// Waits on the host.
    void synchronize() const;
    [[nodiscard]] CUevent handle() const noexcept { return event_; }

 private:
    CUevent event_ = nullptr;
};

/// Time that a stream spends between two points.
class EventPair {
 public:
    void start(CUstream stream) { start_.record(stream); }
    void stop(CUstream stream) { stop_.record(stream); }
    /// Waits for stop(). The resolution is about half a microsecond.
    [[nodiscard]] float milliseconds() const;

 private:
    Event start_;
    Event stop_;
};

}  // namespace smlora::gpu
