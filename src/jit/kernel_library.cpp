#include "jit/kernel_library.hpp"

#include "gpu/driver.hpp"
#include "gpu/module.hpp"
#include "jit/elf.hpp"
#include "jit/entry_metadata.hpp"
#include "jit/kernel_store.hpp"
#include "util/thread_pool.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <functional>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

namespace smlora::jit {
namespace {

/// Which loaded kernel: a reference for looking up, a value in the table.
struct KernelReference {
    const KernelSpec& spec;
    const gpu::Arch& arch;
    unsigned long long context;  ///< its id, which unlike its address is never used again
};

struct KernelName {
    KernelSpec spec;
    gpu::Arch arch;
    unsigned long long context;

    [[nodiscard]] KernelReference reference() const { return {spec, arch, context}; }
};

struct KernelHash {
    using is_transparent = void;

    std::size_t operator()(const KernelReference& kernel) const {
        std::size_t hash = std::hash<std::string>()(kernel.spec.family);
        const auto mix = [&](std::size_t value) { hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL + (hash >> 29); };
        for (const Constant& constant : kernel.spec.constants) {
            // Names come with the family, in its order; what differs is the values.
            mix(constant.kind == Constant::Kind::type ? std::hash<std::string>()(constant.type)
                                                      : static_cast<std::size_t>(constant.integer));
        }
        mix(kernel.spec.threads);
        mix(kernel.spec.dynamic_shared);
        mix(static_cast<std::size_t>(kernel.arch.number()));
        mix(kernel.context);
        return hash;
    }
    std::size_t operator()(const KernelName& kernel) const { return (*this)(kernel.reference()); }
};

struct KernelEqual {
    using is_transparent = void;

    static bool equal(const KernelReference& a, const KernelReference& b) {
        return a.context == b.context && a.arch == b.arch && a.spec == b.spec;
    }
    bool operator()(const KernelName& a, const KernelName& b) const { return equal(a.reference(), b.reference()); }
    bool operator()(const KernelReference& a, const KernelName& b) const { return equal(a, b.reference()); }
    bool operator()(const KernelName& a, const KernelReference& b) const { return equal(a.reference(), b); }
};

unsigned long long current_context_id() {
    CUcontext context = nullptr;
    SMLORA_CUDA(cuCtxGetCurrent, &context);
    if (context == nullptr) {
        throw Error(ErrorCode::cuda, "the calling thread has no current CUDA context to load kernels into");
    }
    unsigned long long id = 0;
    SMLORA_CUDA(cuCtxGetId, context, &id);
    return id;
}

/// Sets what a launch needs and asks how many blocks fit on a multiprocessor.
gpu::LoadedKernel prepare(CUfunction function, const KernelSpec& spec, const gpu::Arch& arch, unsigned args_bytes) {
    gpu::LoadedKernel kernel;
    kernel.function = function;
    kernel.threads = spec.threads;
    kernel.dynamic_shared = spec.dynamic_shared;
    kernel.args_bytes = args_bytes;
    if (spec.dynamic_shared > 0) {
        // Above 48 KiB a kernel must opt in; static shared memory counts too, so this is set for any amount.
        const CUresult result = gpu::driver().cuFuncSetAttribute(
            function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, static_cast<int>(spec.dynamic_shared));
        if (result == CUDA_ERROR_INVALID_VALUE) {
            throw Error(
                ErrorCode::unsupported,
                fmt::format(
                    "kernel {} for {}: a block needs {} bytes of dynamic shared memory, which the GPU does not have",
                    readable(spec), arch.name(), spec.dynamic_shared));
        }
        gpu::check(result, "cuFuncSetAttribute");
        // The rest of the multiprocessor's memory is L1 cache, which such a kernel does not use for what it streams.
        SMLORA_CUDA(cuFuncSetAttribute, function, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                    CU_SHAREDMEM_CARVEOUT_MAX_SHARED);
    }
    SMLORA_CUDA(cuOccupancyMaxActiveBlocksPerMultiprocessor, &kernel.blocks_per_multiprocessor, function,
                static_cast<int>(spec.threads), spec.dynamic_shared);
    if (kernel.blocks_per_multiprocessor < 1) {
        throw Error(
            ErrorCode::unsupported,
            fmt::format("kernel {} for {}: no block of {} threads with {} bytes of dynamic shared memory fits on "
                        "a multiprocessor of the GPU",
                        readable(spec), arch.name(), spec.threads, spec.dynamic_shared));
    }
    return kernel;
}

CompileResult result_of(const StoredKernel& kernel) {
    CompileResult result;
    result.found_in_cache = kernel.found;
    result.stored = kernel.stored;
    result.registers = metadata_integer(kernel.entry, "registers");
    result.spill_bytes = metadata_integer(kernel.entry, "spill_bytes");
    result.shared_bytes = metadata_integer(kernel.entry, "shared_bytes");
    if (!kernel.found) result.compile_seconds = kernel.entry.metadata.value("compile_seconds", 0.0);
    return result;
}

}  // namespace

struct KernelLibrary::State {
    State(cache::Cache& cache_, util::Logger& logger, NvrtcAccess access)
        : cache(cache_), log(logger), store(cache, logger, counters, std::move(access)) {}

    /// The kernel if it is loaded. Counts; throws Error{not_ready} for one that is not while the stream captures.
    const gpu::LoadedKernel* ready(const KernelReference& kernel, bool stream_capturing);
    const gpu::LoadedKernel* find(const KernelReference& kernel);
    const gpu::LoadedKernel& load(const KernelReference& kernel, std::shared_ptr<const StoredKernel> stored);

    cache::Cache& cache;
    util::Logger& log;
    LibraryCounters counters;
    KernelStore store;

    std::mutex use_mutex;
    std::uint64_t told_hits = 0;    // guarded by use_mutex
    std::uint64_t told_misses = 0;  // likewise

    std::shared_mutex loaded_mutex;
    std::unordered_map<KernelName, gpu::LoadedKernel, KernelHash, KernelEqual> loaded;  ///< elements never move or go

    std::mutex loading_mutex;
    std::map<unsigned long long, gpu::Modules> modules;  ///< by context id
};

const gpu::LoadedKernel* KernelLibrary::State::ready(const KernelReference& kernel, bool stream_capturing) {
    if (const gpu::LoadedKernel* found = find(kernel)) {
        counters.memory_hits.fetch_add(1, std::memory_order_relaxed);
        return found;
    }
    if (stream_capturing) {
        throw Error(
            ErrorCode::not_ready,
            fmt::format("kernel {} for {} is not loaded, and nothing can be compiled or loaded while the stream "
                        "captures a graph: run the operation once on the same shapes before the capture",
                        readable(kernel.spec), kernel.arch.name()));
    }
    return nullptr;
}

const gpu::LoadedKernel* KernelLibrary::State::find(const KernelReference& kernel) {
    const std::shared_lock lock(loaded_mutex);
    const auto found = loaded.find(kernel);
    return found == loaded.end() ? nullptr : &found->second;
}

const gpu::LoadedKernel& KernelLibrary::State::load(const KernelReference& kernel,
                                                    std::shared_ptr<const StoredKernel> stored) {
    // Loading takes a millisecond at most; one at a time is no loss, and none is loaded twice.
    std::unique_lock loading(loading_mutex);
    if (const gpu::LoadedKernel* ready = find(kernel)) {
        return *ready;
    }
    gpu::Modules& of_context = modules.try_emplace(kernel.context).first->second;
    CUfunction function = nullptr;
    CUresult result = of_context.load(stored->entry.cubin, symbol(kernel.spec), function);
    if (gpu::is_refusal(result) && stored->found) {
        // The entry is what some compiler made, or its checks had failed: whatever is wrong, a new one is right.
        ++counters.rejected;
        log.warning(fmt::format("cache entry {} ({} for {}) was refused by the driver; compiling the kernel again",
                                stored->key, readable(kernel.spec), kernel.arch.name()));
        stored = store.obtain(kernel.spec, kernel.arch, KernelStore::Use::compiled_anew);
        result = of_context.load(stored->entry.cubin, symbol(kernel.spec), function);
    }
    if (result != CUDA_SUCCESS) {
        int version = 0;
        gpu::driver().cuDriverGetVersion(&version);
        gpu::check(result, fmt::format("loading kernel {} for {}, made by {}, with a driver for CUDA {}.{}",
                                       readable(kernel.spec), kernel.arch.name(),
                                       stored->entry.metadata.value("compiler", "an unknown compiler"), version / 1000,
                                       version % 1000 / 10)
                               .c_str());
    }
    try {
        std::string why;
        const auto facts = find_kernel(stored->entry.cubin, symbol(kernel.spec), why);
        if (!facts) {
            throw Error(ErrorCode::internal, fmt::format("kernel {}: {}", readable(kernel.spec), why));
        }
        const gpu::LoadedKernel prepared = prepare(function, kernel.spec, kernel.arch, facts->args_bytes);
        const std::unique_lock writing(loaded_mutex);
        return loaded.try_emplace(KernelName{kernel.spec, kernel.arch, kernel.context}, prepared).first->second;
    } catch (...) {
        // Or every further try would leave one more module in the context.
        of_context.unload_last();
        throw;
    }
}

KernelLibrary::KernelLibrary(cache::Cache& cache, util::Logger& log)
    : KernelLibrary(cache, log, NvrtcAccess::installed(&log)) {}

KernelLibrary::KernelLibrary(cache::Cache& cache, util::Logger& log, NvrtcAccess access)
    : state_(std::make_unique<State>(cache, log, std::move(access))) {}

KernelLibrary::~KernelLibrary() { count_use(); }

const gpu::LoadedKernel& KernelLibrary::get(const KernelSpec& spec, const gpu::Arch& arch, bool stream_capturing) {
    const KernelReference kernel{spec, arch, current_context_id()};
    if (const gpu::LoadedKernel* ready = state_->ready(kernel, stream_capturing)) return *ready;
    return state_->load(kernel, state_->store.obtain(spec, arch));
}

std::vector<const gpu::LoadedKernel*> KernelLibrary::get_all(const std::vector<const KernelSpec*>& specs,
                                                             const gpu::Arch& arch, util::ThreadPool& threads,
                                                             bool stream_capturing) {
    struct Missing {
        std::size_t index;
        std::shared_ptr<const StoredKernel> stored;
    };
    const unsigned long long context = current_context_id();
    std::vector<const gpu::LoadedKernel*> kernels(specs.size());
    std::vector<Missing> missing;
    for (std::size_t i = 0; i < specs.size(); ++i) {
        kernels[i] = state_->ready({*specs[i], arch, context}, stream_capturing);
        if (kernels[i] == nullptr) missing.push_back({i, state_->store.find(*specs[i], arch)});
    }
    std::vector<Missing*> uncompiled;
    for (Missing& one : missing) {
        if (one.stored == nullptr) uncompiled.push_back(&one);
    }
    threads.parallel_for(static_cast<std::int64_t>(uncompiled.size()), [&](std::int64_t i) {
        Missing& one = *uncompiled[static_cast<std::size_t>(i)];
        one.stored = state_->store.obtain(*specs[one.index], arch, KernelStore::Use::looked_for);
    });
    // On this thread, whose context they are loaded into.
    for (Missing& one : missing) {
        kernels[one.index] = &state_->load({*specs[one.index], arch, context}, std::move(one.stored));
    }
    return kernels;
}

std::optional<CompileResult> KernelLibrary::find_cached(const KernelSpec& spec, const gpu::Arch& arch) {
    const std::shared_ptr<const StoredKernel> kernel = state_->store.find(spec, arch);
    if (kernel == nullptr) return std::nullopt;
    return result_of(*kernel);
}

CompileResult KernelLibrary::ensure_cached(const KernelSpec& spec, const gpu::Arch& arch) {
    return result_of(*state_->store.obtain(spec, arch));
}

std::string KernelLibrary::machine_code(const KernelSpec& spec, const gpu::Arch& arch) {
    const std::optional<std::string> digest = machine_code_digest(state_->store.obtain(spec, arch)->entry.cubin);
    if (!digest) {
        throw Error(ErrorCode::internal, fmt::format("kernel {}: its cubin has no code", readable(spec)));
    }
    return *digest;
}

std::string KernelLibrary::compiler_version() { return state_->store.compiler_version(); }

std::string KernelLibrary::template_digest(const std::vector<std::string>& families) const {
    return state_->store.template_digest(families);
}

std::vector<double> KernelLibrary::compile_seconds() const { return state_->store.compile_seconds(); }

const LibraryCounters& KernelLibrary::counters() const noexcept { return state_->counters; }

void KernelLibrary::count_use() {
    const std::lock_guard lock(state_->use_mutex);
    const std::uint64_t hits = state_->counters.disk_hits, misses = state_->counters.compiles;
    state_->cache.count_use(hits - state_->told_hits, misses - state_->told_misses);
    state_->told_hits = hits;
    state_->told_misses = misses;
}

}  // namespace smlora::jit
