// An engine with a device to work on, and a stream of its own there.
#pragma once

#include "gpu/device.hpp"

#include <smlora/engine.hpp>

#include <cstddef>
#include <optional>
#include <string>

namespace smlora::tool {

/// Keeps the context of its GPU current on the thread that made it. Throws Error{no_device}.
class Session {
 public:
    Session(EngineOptions options);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    [[nodiscard]] const Engine& engine() const noexcept { return engine_; }
    [[nodiscard]] bool on_gpu() const noexcept { return context_.has_value(); }
    [[nodiscard]] Stream stream() const noexcept { return {stream_}; }

    /// "NVIDIA H200 (sm_90a)", "CPU, 16 threads".
    [[nodiscard]] std::string device_name() const;
    /// Of the GPU that there must be.
    [[nodiscard]] const gpu::DeviceFacts& facts() const { return context_->facts(); }
    [[nodiscard]] std::size_t l2_bytes() const;    ///< 0 on the CPU
    [[nodiscard]] std::size_t free_bytes() const;  ///< device memory; on the CPU the memory of the machine

 private:
    Engine engine_;
    std::optional<gpu::CurrentContext> context_;
    CUstream stream_ = nullptr;
};

}  // namespace smlora::tool
