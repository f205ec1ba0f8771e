#include "gpu/device.hpp"
#include "gpu/driver.hpp"
#include "jit/nvrtc.hpp"

#include <smlora/error.hpp>
#include <smlora/system.hpp>
#include <smlora/version.hpp>

#include <algorithm>

namespace smlora {
namespace {

void describe_driver(SystemInfo& info) {
    try {
        SMLORA_CUDA(cuDriverGetVersion, &info.driver_version);
        info.driver_found = true;
        const int count = gpu::device_count();
        for (int ordinal = 0; ordinal < count; ++ordinal) {
            try {
                const gpu::DeviceFacts& facts = gpu::device_facts(ordinal);
                info.devices.push_back({ordinal, facts.name, facts.arch.name(), facts.multiprocessors,
                                        facts.memory_bytes, facts.l2_bytes,
                                        static_cast<std::uint64_t>(facts.shared_bytes_per_block)});
            } catch (const Error& error) {
                // A GPU that smlora does not support is left out; the others serve.
                info.driver_error = error.what();
            }
        }
    } catch (const Error& error) {
        info.driver_error = error.what();
    }
}

void describe_nvrtc(SystemInfo& info) {
    try {
        const jit::Nvrtc& nvrtc = jit::Nvrtc::instance();
        info.nvrtc_found = true;
        info.nvrtc_version = nvrtc.version().number();
        info.nvrtc_library = nvrtc.file().string();
        for (const gpu::Arch& arch : gpu::supported_archs()) {
            if (std::binary_search(nvrtc.archs().begin(), nvrtc.archs().end(), arch.number())) {
                info.archs.push_back(arch.name());
            }
        }
    } catch (const Error& error) {
        info.nvrtc_error = error.what();
    }
}

}  // namespace

SystemInfo system_info() {
    SystemInfo info;
    info.smlora_version = SMLORA_VERSION;
    describe_driver(info);
    describe_nvrtc(info);
    return info;
}

}  // namespace smlora
