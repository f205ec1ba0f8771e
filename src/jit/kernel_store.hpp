// From a specialisation to its cache entry: found, else compiled and stored.
#pragma once

#include "cache/cache.hpp"
#include "jit/compiler_identity.hpp"
#include "jit/kernel_compiler.hpp"
#include "jit/kernel_library.hpp"
#include "jit/single_flight.hpp"
#include "jit/templates.hpp"
#include "util/log.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace smlora::jit {

/// A kernel's machine code and what became of it.
struct StoredKernel {
    std::string key;
    cache::KernelEntry entry;
    bool found = false;   ///< this call compiled nothing
    bool stored = false;  ///< it is in a layer
};

/// Thread-safe.
class KernelStore {
 public:
    enum class Use { cached, looked_for, compiled_anew };

    KernelStore(cache::Cache& cache, util::Logger& log, LibraryCounters& counters,
                NvrtcAccess access = NvrtcAccess::installed());

    /// The kernel if it need not be compiled; else nothing.
    std::shared_ptr<const StoredKernel> find(const KernelSpec& spec, const gpu::Arch& arch);

    /// Use::looked_for: find() has just not found it. Use::compiled_anew: although the cache has it, because the driver
    /// refused what the cache has; that counts as rejected. Throws Error{compile}.
    std::shared_ptr<const StoredKernel> obtain(const KernelSpec& spec, const gpu::Arch& arch, Use use = Use::cached);

    /// See KernelLibrary.
    [[nodiscard]] std::string compiler_version();
    [[nodiscard]] std::string template_digest(const std::vector<std::string>& families) const;
    [[nodiscard]] std::vector<double> compile_seconds() const;

 private:
    using Shared = std::shared_ptr<const StoredKernel>;

    [[nodiscard]] std::vector<CompilerVersion> compilers_to_look_for();
    [[nodiscard]] Shared load(const CompileRequest& request, const std::string& key);
    [[nodiscard]] Shared compile(CompileRequest request, Use use);
    [[nodiscard]] Shared compile_and_store(const CompileRequest& request, const std::string& key, const Nvrtc& nvrtc);

    cache::Cache& cache_;
    util::Logger& log_;
    LibraryCounters& counters_;
    Templates templates_;
    CompilerIdentity compiler_;
    const bool may_compile_;  ///< unless SMLORA_JIT=off
    SingleFlight<StoredKernel> flights_;

    mutable std::mutex mutex_;
    std::vector<double> compile_seconds_;
    std::vector<CompilerVersion> listed_;     ///< of the entries in the cache, newest first
    std::map<std::string, Shared> unstored_;  ///< compiled, but the cache could not take them; by key

    mutable std::mutex digests_mutex_;
    mutable std::map<std::vector<std::string>, std::string> digests_;  ///< by families, of templates that never change
};

}  // namespace smlora::jit
