#include "engine/engine_impl.hpp"

#include "cache/location.hpp"
#include "families/unpack.hpp"
#include "tuning/determinism.hpp"
#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <memory>
#include <utility>

namespace smlora {
namespace {

std::uint64_t unpack_limit_of(const EngineOptions& options) {
    if (options.unpack_limit_bytes) return *options.unpack_limit_bytes;
    const auto text = util::environment("SMLORA_UNPACK_LIMIT");
    if (!text) return families::default_unpack_limit;
    if (const auto bytes = util::parse_size(*text)) return *bytes;
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("SMLORA_UNPACK_LIMIT: expected a number of bytes, or one with the suffix K, M or G, got \"{}\"",
                    *text));
}

EngineOptions with_determinism(EngineOptions options) {
    options.determinism = tuning::determinism(options.determinism);
    return options;
}

}  // namespace

Engine::Impl::Impl(EngineOptions options_)
    : options(with_determinism(std::move(options_))),
      log(options.log),
      threads(options.threads),
      cache({options.cache_root, options.cache_layers, options.cache_limit_bytes,
             cache::shipped_layer(options.shipped_layer)},
            log),
      kernels(cache, log),
      unpack_limit(unpack_limit_of(options)) {}

namespace {

/// A forked child leaves it in memory: joining threads and taking locks that are not there would crash or never end.
void end(std::unique_ptr<Engine::Impl> impl) {
    if (impl != nullptr && !impl->origin.is_this_process()) static_cast<void>(impl.release());
}

}  // namespace

Engine::~Engine() { end(std::move(impl_)); }

Engine::Engine(Engine&&) noexcept = default;

Engine& Engine::operator=(Engine&& other) noexcept {
    if (this != &other) end(std::exchange(impl_, std::move(other.impl_)));
    return *this;
}

Backend Engine::backend() const { return impl().options.backend; }

Engine::Impl& Engine::impl() const {
    if (impl_ == nullptr) throw Error(ErrorCode::invalid_argument, "engine: expected one that was not moved from");
    if (!impl_->origin.is_this_process()) {
        throw Error(ErrorCode::forked,
                    fmt::format("engine: it was made in process {}, from which this one was forked without the threads "
                                "behind it; make an engine in the child",
                                impl_->origin.pid()));
    }
    return *impl_;
}

}  // namespace smlora
