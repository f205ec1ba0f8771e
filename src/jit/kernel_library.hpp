// From a specialisation to a loaded function: in memory, else from the cache, else compiled and stored.
#pragma once

#include "gpu/arch.hpp"
#include "gpu/loaded_kernel.hpp"
#include "jit/kernel_spec.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace smlora::util {
class Logger;
class ThreadPool;
}  // namespace smlora::util
namespace smlora::cache {
class Cache;
}

namespace smlora::jit {

struct NvrtcAccess;

struct CompileResult {
    bool found_in_cache = false;
    double compile_seconds = 0;
    std::int64_t registers = 0;
    std::int64_t spill_bytes = 0;
    std::int64_t shared_bytes = 0;  ///< static
    bool stored = false;            ///< the entry is in the writable layer (or was found in a layer)
};

struct LibraryCounters {
    std::atomic<std::uint64_t> memory_hits{0};
    std::atomic<std::uint64_t> disk_hits{0};
    std::atomic<std::uint64_t> compiles{0};
    std::atomic<std::uint64_t> rejected{
        0};  ///< sound files whose kernel could not be used; cache::Cache counts the rest
};

/// Thread-safe. Several threads that need one kernel compile it once.
///
/// With a warm cache NVRTC is never opened: the version of the installed one, which is part of a kernel's key, is known
/// from its file (compiler_identity.hpp). Without an NVRTC the kernels of the compilers that filled the cache are used.
class KernelLibrary {
 public:
    KernelLibrary(cache::Cache& cache, util::Logger& log);
    KernelLibrary(cache::Cache& cache, util::Logger& log, NvrtcAccess access);
    ~KernelLibrary();

    /// The kernel for the current CUDA context, which must exist. `stream_capturing`: a kernel that is not loaded yet
    /// throws Error{not_ready} instead of being compiled or loaded. Throws Error{compile} if it is in no cache layer
    /// and cannot be compiled, Error{unsupported} if the GPU has not the shared memory or registers for one block of
    /// it, Error{cuda} if the driver cannot load it. What failed is tried anew by the next call.
    const gpu::LoadedKernel& get(const KernelSpec& spec, const gpu::Arch& arch, bool stream_capturing = false);

    /// The kernels of `specs`, in their order; what get() says holds for each. Those that must be compiled are compiled
    /// at once, on `threads` and the calling thread. The first error is thrown when all compiles that run have ended.
    std::vector<const gpu::LoadedKernel*> get_all(const std::vector<const KernelSpec*>& specs, const gpu::Arch& arch,
                                                  util::ThreadPool& threads, bool stream_capturing = false);

    /// What is known of a kernel that is in the cache; nothing for one that would have to be compiled.
    std::optional<CompileResult> find_cached(const KernelSpec& spec, const gpu::Arch& arch);

    /// Makes sure that the kernel is in the cache; needs no GPU. A kernel that is in a layer needs no NVRTC either.
    /// Throws Error{compile}.
    CompileResult ensure_cached(const KernelSpec& spec, const gpu::Arch& arch);

    /// What the kernel does on a GPU, see jit::machine_code_digest; compiled unless it is in a layer. Throws
    /// Error{compile}.
    [[nodiscard]] std::string machine_code(const KernelSpec& spec, const gpu::Arch& arch);

    /// The version of the NVRTC that a compile would use, "13.0.88"; empty without one. Opens it only if no earlier
    /// process left a note of it.
    [[nodiscard]] std::string compiler_version();

    /// 32 hexadecimal digits that change with the templates of these families, but for comments and layout. Throws
    /// Error{compile} for a family without a template.
    [[nodiscard]] std::string template_digest(const std::vector<std::string>& families) const;

    /// Of each compile so far, in seconds.
    [[nodiscard]] std::vector<double> compile_seconds() const;

    [[nodiscard]] const LibraryCounters& counters() const noexcept;

    /// Tells the cache how many kernels were found in it and compiled since the last time. So does the destructor.
    void count_use();

 private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace smlora::jit
