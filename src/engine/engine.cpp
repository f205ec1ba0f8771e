#include "engine/engine_impl.hpp"

#include "cache/location.hpp"

#include <smlora/error.hpp>

#include <utility>

namespace smlora {

Engine::Impl::Impl(EngineOptions options_)
    : options(std::move(options_)),
      log(options.log),
      threads(options.threads),
      cache({options.cache_root, options.cache_layers, options.cache_limit_bytes,
             cache::shipped_layer(options.shipped_layer)},
            log),
      kernels(cache, log) {}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Backend Engine::backend() const { return impl().options.backend; }

void Engine::throw_moved_from() {
    throw Error(ErrorCode::invalid_argument, "engine: expected one that was not moved from");
}

}  // namespace smlora
