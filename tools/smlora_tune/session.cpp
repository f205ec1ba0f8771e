#include "smlora_tune/session.hpp"

#include "engine/engine_impl.hpp"
#include "gpu/driver.hpp"
#include "smlora_tune/command.hpp"
#include "util/counted.hpp"

#include <fmt/format.h>
#include <unistd.h>

namespace smlora::tool {

Session::Session(EngineOptions options) : engine_(std::move(options)) {
    remark_missing_layers(engine_);
    if (engine_.backend() == Backend::cpu) return;
    context_.emplace(engine_.impl().contexts, engine_.impl().options.device);
    // A blocking stream: it waits for the copies of Buffer, which go through the default one.
    SMLORA_CUDA(cuStreamCreate, &stream_, CU_STREAM_DEFAULT);
}

Session::~Session() {
    if (stream_ != nullptr) gpu::driver().cuStreamDestroy(stream_);
}

std::string Session::device_name() const {
    if (!on_gpu()) return "CPU, " + util::counted(engine_.impl().threads.threads(), "thread");
    return fmt::format("{} ({})", context_->facts().name, context_->facts().arch.name());
}

std::size_t Session::l2_bytes() const { return on_gpu() ? context_->facts().l2_bytes : 0; }

std::size_t Session::free_bytes() const {
    if (!on_gpu()) {
        return static_cast<std::size_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    }
    std::size_t free = 0;
    std::size_t total = 0;
    SMLORA_CUDA(cuMemGetInfo, &free, &total);
    return free;
}

}  // namespace smlora::tool
