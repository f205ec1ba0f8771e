// What an engine holds.
#pragma once

#include "cache/cache.hpp"
#include "gpu/device.hpp"
#include "jit/kernel_library.hpp"
#include "plan/chooser.hpp"
#include "plan/plan_table.hpp"
#include "util/log.hpp"
#include "util/process.hpp"
#include "util/thread_pool.hpp"

#include <smlora/engine.hpp>

#include <cstdint>
#include <memory>

namespace smlora {

struct Engine::Impl {
    explicit Impl(EngineOptions options);

    util::Origin origin;
    EngineOptions options;  ///< with the determinism that holds
    util::Logger log;
    util::ThreadPool threads;
    cache::Cache cache;
    jit::KernelLibrary kernels;
    gpu::PrimaryContexts contexts;
    plan::PlanTable plans;
    const std::uint64_t unpack_limit;        ///< bytes of quantised weights that are unpacked at once
    std::unique_ptr<plan::Chooser> chooser;  ///< set by the constructor of Engine, which knows what implements it
};

}  // namespace smlora
