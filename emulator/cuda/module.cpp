#include "cuda/module.hpp"

#include "cuda/device.hpp"
#include "cuda/stream.hpp"
#include "device/kernel_facts.hpp"
#include "nvrtc/image.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

using namespace smlora::emulator;

namespace {

/// A file that is only in memory.
int file_of(const std::string& bytes) {
    const int file = memfd_create("kernel", MFD_CLOEXEC);
    std::size_t written = 0;
    while (file >= 0 && written < bytes.size()) {
        const ssize_t now = write(file, bytes.data() + written, bytes.size() - written);
        if (now <= 0) {
            close(file);
            return -1;
        }
        written += static_cast<std::size_t>(now);
    }
    return file;
}

/// Where the loader has put it.
void find_extent(CUmod_st& module) {
    link_map* map = nullptr;
    dlinfo(module.handle, RTLD_DI_LINKMAP, &map);
    module.code.begin = map->l_addr;
    struct Search {
        unsigned long begin;
        unsigned long end;
    } search{map->l_addr, map->l_addr};
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* argument) {
            auto& found = *static_cast<Search*>(argument);
            if (info->dlpi_addr != found.begin) return 0;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const ElfW(Phdr)& segment = info->dlpi_phdr[i];
                if (segment.p_type == PT_LOAD) {
                    found.end = std::max(found.end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
                }
            }
            return 1;
        },
        &search);
    module.code.end = search.end;
}

}  // namespace

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    const CUresult refusal = refuse_in_capture();
    if (refusal != CUDA_SUCCESS) return refusal;
    const std::string shared_object = undress(image);
    if (shared_object.empty()) return CUDA_ERROR_INVALID_IMAGE;
    auto made = std::make_unique<CUmod_st>();
    made->file = file_of(shared_object);
    if (made->file < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    made->code.file = fmt::format("/proc/{}/fd/{}", getpid(), made->file);
    made->handle = dlopen(made->code.file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (made->handle == nullptr) {
        complain(fmt::format("cuModuleLoadData: {}", dlerror()));
        close(made->file);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    find_extent(*made);
    const auto attach = reinterpret_cast<void (*)(Runtime*)>(dlsym(made->handle, "smlora_emulator_attach"));
    if (attach == nullptr) return CUDA_ERROR_INVALID_IMAGE;
    attach(&Device::instance().machine);
    *module = made.release();
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
    return with_device([&](Device&) {
        dlclose(module->handle);
        close(module->file);
        delete module;
        return CUDA_SUCCESS;
    });
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    return with_device([&](Device&) {
        const auto* const facts =
            static_cast<const KernelFacts*>(dlsym(module->handle, fmt::format("{}_facts", name).c_str()));
        if (facts == nullptr) return CUDA_ERROR_NOT_FOUND;
        const auto [at, added] = module->functions.try_emplace(name);
        *function = &at->second;
        if (!added) return CUDA_SUCCESS;
        Kernel& kernel = at->second.kernel;
        kernel.name = name;
        kernel.code = &module->code;
        kernel.entry = facts->entry;
        kernel.parameter_bytes.assign(facts->parameter_bytes, facts->parameter_bytes + facts->parameters);
        kernel.most_threads = facts->most_threads;
        kernel.cluster = {facts->cluster[0], facts->cluster[1], facts->cluster[2]};
        return CUDA_SUCCESS;
    });
}
