// Streams and graphs for tests of what only a GPU has.
#pragma once

#include "gpu/device.hpp"
#include "gpu/driver.hpp"

#include <smlora/engine.hpp>

namespace smlora::test {

/// The primary context of device 0, current for as long as this lives: what a program that uses the CUDA runtime has.
class CallersContext {
 public:
    [[nodiscard]] CUcontext handle() const { return current_.handle(); }

 private:
    gpu::PrimaryContexts primaries_;
    gpu::CurrentContext current_{primaries_, 0};
};

/// A stream that does not wait for the legacy default stream.
class GpuStream {
 public:
    GpuStream() { SMLORA_CUDA(cuStreamCreate, &stream_, CU_STREAM_NON_BLOCKING); }
    ~GpuStream() { gpu::driver().cuStreamDestroy(stream_); }
    GpuStream(const GpuStream&) = delete;
    GpuStream& operator=(const GpuStream&) = delete;

    [[nodiscard]] CUstream handle() const { return stream_; }
    [[nodiscard]] Stream view() const { return {stream_}; }

 private:
    CUstream stream_ = nullptr;
};

/// What `work` enqueues on `stream`, captured in the strictest mode: any call that a capture forbids, on any thread,
/// fails it.
class Graph {
 public:
    template <class Work>
    Graph(const GpuStream& stream, const Work& work) {
        SMLORA_CUDA(cuStreamBeginCapture, stream.handle(), CU_STREAM_CAPTURE_MODE_GLOBAL);
        try {
            work();
        } catch (...) {
            gpu::driver().cuStreamEndCapture(stream.handle(), &graph_);
            if (graph_ != nullptr) gpu::driver().cuGraphDestroy(graph_);
            throw;
        }
        SMLORA_CUDA(cuStreamEndCapture, stream.handle(), &graph_);
        SMLORA_CUDA(cuGraphInstantiate, &executable_, graph_, 0);
    }
    ~Graph() {
        if (executable_ != nullptr) gpu::driver().cuGraphExecDestroy(executable_);
        if (graph_ != nullptr) gpu::driver().cuGraphDestroy(graph_);
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    void launch(const GpuStream& stream) const {
        SMLORA_CUDA(cuGraphLaunch, executable_, stream.handle());
        SMLORA_CUDA(cuStreamSynchronize, stream.handle());
    }

 private:
    CUgraph graph_ = nullptr;
    CUgraphExec executable_ = nullptr;
};

}  // namespace smlora::test
