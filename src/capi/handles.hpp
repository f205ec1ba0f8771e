// What stands behind the opaque pointers of the C ABI.
#pragma once

#include "capi/boundary.hpp"

#include <smlora/engine.hpp>
#include <smlora/memory.hpp>

struct smlora_engine {
    smlora::Engine engine;
};

struct smlora_buffer {
    smlora::Buffer buffer;
};

namespace smlora::capi {

[[nodiscard]] inline const Engine& to_engine(smlora_engine* engine) { return required(engine, "engine").engine; }

}  // namespace smlora::capi
