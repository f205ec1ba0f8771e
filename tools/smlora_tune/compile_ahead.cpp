#include "smlora_tune/compile_ahead.hpp"

#include "engine/engine_impl.hpp"

#include <smlora/error.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace smlora::tool {

CompileAhead::CompileAhead(const Engine& engine, const gpu::DeviceFacts& facts, const tuning::Protocol& protocol,
                           autotune::Wanted wanted, std::vector<TunedRequest> requests, int threads)
    : engine_(engine),
      facts_(facts),
      protocol_(protocol),
      wanted_(wanted),
      requests_(std::move(requests)),
      pool_(std::max(threads, 1)) {
    if (threads < 1) return;
    thread_ = std::thread([this] {
        for (const TunedRequest& next : requests_) {
            if (stopping_) return;
            try {
                compile(next);
            } catch (const Error&) {
            }
        }
    });
}

std::size_t CompileAhead::finish() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
    return compiled_;
}

void CompileAhead::compile(const TunedRequest& next) {
    Engine::Impl& impl = engine_.impl();
    const std::vector<jit::KernelSpec> specs =
        autotune::tuner_of(engine_).kernels_to_try(next.problem, next.request, facts_, protocol_, wanted_);
    pool_.parallel_for(static_cast<std::int64_t>(specs.size()), [&](std::int64_t i) {
        if (stopping_) return;
        try {
            const jit::CompileResult result =
                impl.kernels.ensure_cached(specs[static_cast<std::size_t>(i)], facts_.arch);
            if (!result.found_in_cache) ++compiled_;
        } catch (const Error&) {
        }
    });
}

}  // namespace smlora::tool
