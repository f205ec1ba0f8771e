// Compiling on cores that are idle what is to be measured next, while the GPU measures.
#pragma once

#include "autotune/tuner.hpp"
#include "gpu/device.hpp"
#include "plan/plan.hpp"
#include "tuning/measurement.hpp"
#include "util/thread_pool.hpp"

#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace smlora::tool {

/// What tune() is called for.
struct TunedRequest {
    Problem problem;
    plan::Request request;
};

/// Compiles the kernels of `requests` in their order into the cache of `engine`, from when it is made until it is told
/// to finish. Errors are left for tune() to meet.
class CompileAhead {
 public:
    /// `engine` must outlive it. With no threads nothing is compiled.
    CompileAhead(const Engine& engine, const gpu::DeviceFacts& facts, const tuning::Protocol& protocol,
                 autotune::Wanted wanted, std::vector<TunedRequest> requests, int threads);
    ~CompileAhead() { finish(); }
    CompileAhead(const CompileAhead&) = delete;
    CompileAhead& operator=(const CompileAhead&) = delete;

    /// Waits for the compiles that run and begins no other one. How many kernels it has compiled.
    std::size_t finish();

 private:
    void compile(const TunedRequest& next);

    const Engine& engine_;
    const gpu::DeviceFacts facts_;
    const tuning::Protocol protocol_;
    const autotune::Wanted wanted_;
    const std::vector<TunedRequest> requests_;
    std::atomic<std::size_t> compiled_{0};
    std::atomic<bool> stopping_{false};
    util::ThreadPool pool_;
    std::thread thread_;
};

}  // namespace smlora::tool
