// Streams and graphs for tests of what only a GPU has.
#pragma once

#include "../../emulator/cuda/capture_functions.hpp"
#include "gpu/device.hpp"
#include "gpu/driver.hpp"

#include <smlora/engine.hpp>

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace smlora::test {

struct CaptureFunctions {
#define SMLORA_DECLARE(function) decltype(&::function) function = nullptr;
    SMLORA_CAPTURE_FUNCTIONS(SMLORA_DECLARE)
#undef SMLORA_DECLARE
};

/// Those of the libcuda that the library has open.
inline const CaptureFunctions& capture_functions() {
    static const CaptureFunctions functions = [] {
        void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        const auto resolve = [library](const char* name) {
            void* const address = library == nullptr ? nullptr : dlsym(library, name);
            if (address == nullptr) throw std::runtime_error(std::string("libcuda.so.1 lacks ") + name);
            return address;
        };
        CaptureFunctions found;
        // As in gpu/driver.cpp: a second macro expands the name to that of the version in cuda.h.
#define SMLORA_STRING(name) #name
#define SMLORA_RESOLVE_AS(member, name) \
    found.member = reinterpret_cast<decltype(found.member)>(resolve(SMLORA_STRING(name)));
#define SMLORA_RESOLVE(function) SMLORA_RESOLVE_AS(function, function)
        SMLORA_CAPTURE_FUNCTIONS(SMLORA_RESOLVE)
#undef SMLORA_RESOLVE
#undef SMLORA_RESOLVE_AS
#undef SMLORA_STRING
        return found;
    }();
    return functions;
}

/// As SMLORA_CUDA, for the functions that only tests call.
#define SMLORA_CAPTURE(function, ...) \
    ::smlora::gpu::check(::smlora::test::capture_functions().function(__VA_ARGS__), #function)

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
        SMLORA_CAPTURE(cuStreamBeginCapture, stream.handle(), CU_STREAM_CAPTURE_MODE_GLOBAL);
        try {
            work();
        } catch (...) {
            capture_functions().cuStreamEndCapture(stream.handle(), &graph_);
            if (graph_ != nullptr) capture_functions().cuGraphDestroy(graph_);
            throw;
        }
        SMLORA_CAPTURE(cuStreamEndCapture, stream.handle(), &graph_);
        SMLORA_CAPTURE(cuGraphInstantiate, &executable_, graph_, 0);
    }
    ~Graph() {
        if (executable_ != nullptr) capture_functions().cuGraphExecDestroy(executable_);
        if (graph_ != nullptr) capture_functions().cuGraphDestroy(graph_);
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    void launch(const GpuStream& stream) const {
        SMLORA_CAPTURE(cuGraphLaunch, executable_, stream.handle());
        SMLORA_CUDA(cuStreamSynchronize, stream.handle());
    }

 private:
    CUgraph graph_ = nullptr;
    CUgraphExec executable_ = nullptr;
};

}  // namespace smlora::test
