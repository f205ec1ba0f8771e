#include "engine/engine_impl.hpp"

#include "cache/location.hpp"

#include <utility>

namespace smlora {

Engine::Impl::Impl(EngineOptions options_)
    : options(std::move(options_)),
      log(options.log),
      threads(options.threads),
      cache({options.cache_root, options.cache_layers, options.cache_limit_bytes, cache::shipped_layer()}, log),
      kernels(cache, log) {}

Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Backend Engine::backend() const noexcept { return impl_->options.backend; }

}  // namespace smlora
