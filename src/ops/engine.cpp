// Puts an engine together: what it holds, and the tuner that chooses kernels for it.
#include "autotune/tuner.hpp"
#include "check/validate.hpp"
#include "engine/engine_impl.hpp"

#include <smlora/engine.hpp>

#include <memory>
#include <utility>

namespace smlora {

Engine::Engine(EngineOptions options) {
    check::validate_options(options);
    impl_ = std::make_unique<Impl>(std::move(options));
    impl_->chooser = std::make_unique<autotune::Tuner>(*impl_);
}

}  // namespace smlora
