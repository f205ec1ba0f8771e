// The engine: a backend, its kernels in memory and the cache on disk behind them.
#pragma once

#include <smlora/determinism.hpp>
#include <smlora/export.hpp>
#include <smlora/tuning.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora {

/// Where operations are computed.
enum class Backend : std::int32_t {
    cuda = 0,  ///< kernels on the GPU of the caller's current context, else on device 0's primary context
    cpu = 1,   ///< the same operations on host memory, multithreaded
};

/// In the order of severity. The C interface has numbers of its own.
enum class LogLevel : std::int32_t {
    debug,    ///< what helps to find a fault
    info,     ///< what is decided, and why
    notice,   ///< nothing is wrong, but it takes the caller's time: tuning at first use begins or ends
    warning,  ///< something is slower or less durable than it could be
};

/// Receives one line, without a newline. May be called from any thread, never from two at once.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// How an engine is made; what is unset comes from the environment, then from a default.
struct EngineOptions {
    Backend backend = Backend::cuda;  ///< fixed for the life of the engine
    /// CUDA device used by threads that have no current context; its primary context is retained by the engine.
    int device = 0;
    /// The writable cache layer. Unset: SMLORA_CACHE_DIR, else $XDG_CACHE_HOME/smlora, else ~/.cache/smlora.
    std::optional<std::filesystem::path> cache_root;
    /// Read-only layers, consulted after the writable one. Unset: SMLORA_CACHE_LAYERS, separated by ':'.
    std::optional<std::vector<std::filesystem::path>> cache_layers;
    /// Where the tuning records that come with smlora lie: the read-only layer below all others. Unset: where this
    /// library is installed. Empty, or with SMLORA_SHIPPED_CACHE=0: none. A folder that is unfit to be a layer, or that
    /// more people may write to than to the library itself, is left out with a warning, never an error.
    std::optional<std::filesystem::path> shipped_layer;
    /// Size at which the writable layer evicts its least recently used entries. Unset: SMLORA_CACHE_LIMIT (bytes, or
    /// with the suffix K, M or G), else 2 GiB. 0: no limit.
    std::optional<std::uint64_t> cache_limit_bytes;
    /// How kernels are chosen among those that compute the same (CUDA backend). Unset: SMLORA_TUNING (first-use, off or
    /// record-only), which an option that is set overrules; else first-use.
    std::optional<TuningPolicy> tuning;
    /// With first_use: seconds that tuning may take of the first calls on a problem and a power-of-two number of
    /// tokens, all operations together, from each call to its return, compiling included. It passes them by one
    /// kernel's compile at most. What was measured is kept, and a later process resumes from it. Unset: 10.
    std::optional<double> tuning_seconds;
    /// With first_use: device memory that measuring may take meanwhile. Unset: an eighth of what is free.
    std::optional<std::uint64_t> tuning_memory_bytes;
    /// Device memory that quantised weights are unpacked to, at most, unless one expert's matrix is larger: forward and
    /// backward_input go through the experts in slices that fit. A limit below several times the L2 cache costs speed.
    /// Unset: SMLORA_UNPACK_LIMIT (as SMLORA_CACHE_LIMIT), else 256 MiB.
    std::optional<std::uint64_t> unpack_limit_bytes;
    /// Which calls have the same bits. Unset: SMLORA_DETERMINISM (run or batch), else run. With batch, kernels are
    /// chosen as for one number of tokens whatever a call has, nothing is measured at first use, and a choice that was
    /// taken stays for the life of the engine.
    std::optional<Determinism> determinism;
    /// Threads of the CPU backend, and of compiling; 0: one for each core that this process may use.
    int threads = 0;
    /// Where log lines go. Unset: to stderr, from the level on that SMLORA_LOG names (debug, info, notice, warning),
    /// notice if it names none.
    LogSink log;
};

/// Thread-safe; cheap to keep for the life of a process. Making one opens neither libcuda nor NVRTC: both are opened
/// when first needed.
///
/// A forked child has none of the threads behind an engine of its parent. There every use of it throws Error{forked},
/// and destroying it does nothing; a child that computes makes an engine of its own.
class SMLORA_API Engine {
 public:
    /// Throws Error{io} when a cache folder that was named is writable by others or is not a folder,
    /// Error{invalid_argument} for a backend, tuning policy or determinism out of range, for a SMLORA_DETERMINISM that
    /// is neither run nor batch, and for a negative device, number of threads or tuning_seconds.
    explicit Engine(EngineOptions options = {});
    /// What was enqueued must be done.
    ~Engine();
    /// An engine that was moved from can be destroyed and assigned to; every other use throws Error{invalid_argument}.
    Engine(Engine&&) noexcept;
    /// Destroys the engine that was here, of which no call may be running.
    Engine& operator=(Engine&&) noexcept;

    /// The one that it was made with.
    [[nodiscard]] Backend backend() const;

    struct Impl;
    /// Of the library itself.
    [[nodiscard]] Impl& impl() const;

 private:
    std::unique_ptr<Impl> impl_;
};

/// A CUDA stream of the caller (a CUstream or cudaStream_t); null is the legacy default stream. Ignored on the CPU
/// backend, whose operations are done when they return.
struct Stream {
    void* handle = nullptr;  ///< CUstream
};

}  // namespace smlora
