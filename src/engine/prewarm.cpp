// Prewarming: every kernel of every problem, each once, on several threads, into the cache.
#include <smlora/prewarm.hpp>

#include "engine/engine_impl.hpp"
#include "gpu/arch.hpp"
#include "gpu/device.hpp"
#include "plan/step_kernels.hpp"
#include "tuning/determinism.hpp"
#include "util/counted.hpp"
#include "util/thread_pool.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

namespace smlora {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

// From a short fine-tuning batch to a long one: the choice of tiles depends on the rows that an expert has, which these
// take from a handful to thousands.
constexpr std::int64_t typical_tokens[] = {512, 2048, 8192, 32768};

/// What is compiled: a kernel for an architecture.
struct Item {
    jit::KernelSpec spec;
    gpu::Arch arch;
    std::string readable;
};

/// The GPUs that are there, without duplicates of an architecture; none without a driver.
std::vector<gpu::DeviceFacts> installed_gpus() {
    std::vector<gpu::DeviceFacts> gpus;
    try {
        for (int ordinal = 0; ordinal < gpu::device_count(); ++ordinal) {
            try {
                gpus.push_back(gpu::device_facts(ordinal));
            } catch (const Error& error) {
                // An old GPU beside the one that trains is no reason to refuse.
                if (error.code() != ErrorCode::unsupported) throw;
            }
        }
    } catch (const Error& error) {
        if (error.code() != ErrorCode::no_device) throw;
    }
    return gpus;
}

/// What to plan for. A GPU that is there plans with its own facts, so that exactly the kernels it will ask for are
/// made.
std::vector<gpu::DeviceFacts> targets(const std::vector<std::string>& archs, int device) {
    const std::vector<gpu::DeviceFacts> gpus = installed_gpus();
    const auto facts_for = [&](const gpu::Arch& arch) {
        const auto same = std::find_if(gpus.begin(), gpus.end(), [&](const auto& gpu) { return gpu.arch == arch; });
        return same != gpus.end() ? *same : gpu::facts_of(arch);
    };
    std::vector<gpu::DeviceFacts> result;
    for (const std::string& name : archs) {
        const gpu::Arch arch = gpu::arch_from_name(name);
        const bool known = std::any_of(result.begin(), result.end(), [&](const auto& t) { return t.arch == arch; });
        if (!known) result.push_back(facts_for(arch));
    }
    if (!result.empty()) return result;
    for (const gpu::DeviceFacts& gpu : gpus) {
        if (gpu.ordinal == device) return {gpu};
    }
    return {gpu::facts_of(gpu::arch_from_name("sm_90a"))};
}

std::vector<std::int64_t> tokens_of(const PrewarmOptions& options, const Engine::Impl& engine) {
    std::vector<std::int64_t> tokens = options.tokens;
    if (tokens.empty()) tokens.assign(std::begin(typical_tokens), std::end(typical_tokens));
    return tuning::choice_tokens(*engine.options.determinism, std::move(tokens));
}

std::vector<Item> collect(const PrewarmOptions& options, Engine::Impl& engine) {
    const std::vector<std::int64_t> tokens = tokens_of(options, engine);
    std::vector<Item> items;
    std::set<std::string> seen;
    const auto add = [&](jit::KernelSpec&& spec, const gpu::Arch& arch) {
        std::string readable = jit::readable(spec);
        std::string identity =
            fmt::format("{} {} {} {} {}", arch.name(), readable, spec.threads, spec.min_blocks, spec.dynamic_shared);
        if (seen.insert(std::move(identity)).second) items.push_back({std::move(spec), arch, std::move(readable)});
    };
    for (const gpu::DeviceFacts& facts : targets(options.archs, engine.options.device)) {
        for (const PrewarmActivation& activation : options.activations) {
            for (jit::KernelSpec& spec : plan::activation_kernels(activation, options.problems, facts)) {
                add(std::move(spec), facts.arch);
            }
        }
        for (const Problem& problem : options.problems) {
            for (const std::int64_t T : tokens) {
                const auto known = [&](const plan::Request& request) {
                    return engine.chooser->known(problem, request, facts);
                };
                for (jit::KernelSpec& spec : plan::step_kernels(problem, T, facts, known, engine.unpack_limit)) {
                    add(std::move(spec), facts.arch);
                }
            }
        }
    }
    return items;
}

/// Of the requests of a step, for each problem and number of tokens.
void count_records(const PrewarmOptions& options, Engine::Impl& engine, PrewarmReport& report) {
    for (const gpu::DeviceFacts& facts : targets(options.archs, engine.options.device)) {
        for (const Problem& problem : options.problems) {
            for (const std::int64_t T : tokens_of(options, engine)) {
                for (const plan::Request& request : plan::step_requests(problem, T, engine.unpack_limit)) {
                    const plan::Chooser::Recorded counts = engine.chooser->recorded(problem, request, facts);
                    report.works += counts.works;
                    report.recorded += counts.recorded;
                }
            }
        }
    }
}

/// Hands out items to threads and tells the caller of each that is done.
class Prewarming {
 public:
    Prewarming(jit::KernelLibrary& kernels, const std::vector<Item>& items,
               const std::function<void(const PrewarmProgress&)>& progress)
        : kernels_(kernels), items_(items), progress_(progress) {
        report_.kernels = items.size();
    }

    /// Compiles until nothing is left, or until another thread has failed.
    void work() {
        std::optional<std::size_t> current = claim();
        while (current) {
            jit::CompileResult result;
            try {
                result = kernels_.ensure_cached(items_[*current].spec, items_[*current].arch);
            } catch (...) {
                const std::lock_guard lock(mutex_);
                failed_ = true;
                throw;
            }
            current = finish(*current, result);
        }
    }

    [[nodiscard]] PrewarmReport take_report() { return std::move(report_); }

 private:
    std::optional<std::size_t> claim() {
        const std::lock_guard lock(mutex_);
        return claim_locked();
    }

    std::optional<std::size_t> claim_locked() {
        if (failed_ || next_ == items_.size()) return std::nullopt;
        running_.insert(next_);
        return next_++;
    }

    /// Books a kernel and claims the next one before telling the caller, so that a single thread too has something
    /// under way to tell of.
    std::optional<std::size_t> finish(std::size_t index, const jit::CompileResult& result) {
        const std::lock_guard lock(mutex_);
        const Item& item = items_[index];
        running_.erase(index);
        ++done_;
        if (result.found_in_cache) {
            ++report_.found;
        } else {
            ++report_.compiled;
            report_.compile_seconds += result.compile_seconds;
        }
        if (result.spill_bytes > 0) {
            report_.warnings.push_back(fmt::format("{} for {} spills {} bytes of registers", item.readable,
                                                   item.arch.name(), result.spill_bytes));
        }
        if (!result.stored) ++report_.not_stored;
        const std::optional<std::size_t> next = claim_locked();
        // A listener that has thrown is not called again.
        if (progress_ && !failed_) {
            PrewarmProgress progress;
            progress.done = done_;
            progress.total = items_.size();
            progress.compiled = report_.compiled;
            progress.kernel = item.readable;
            progress.compile_seconds = result.found_in_cache ? 0 : result.compile_seconds;
            // The one that has run longest is the likeliest to hold up the end.
            if (!running_.empty()) progress.compiling = items_[*running_.begin()].readable;
            try {
                progress_(progress);
            } catch (...) {
                failed_ = true;
                throw;
            }
        }
        return next;
    }

    jit::KernelLibrary& kernels_;
    const std::vector<Item>& items_;
    const std::function<void(const PrewarmProgress&)>& progress_;
    std::mutex mutex_;
    std::set<std::size_t> running_;
    std::size_t next_ = 0;
    std::size_t done_ = 0;
    bool failed_ = false;
    PrewarmReport report_;
};

}  // namespace

PrewarmReport prewarm(const Engine& engine, const PrewarmOptions& options,
                      const std::function<void(const PrewarmProgress&)>& progress) {
    const auto start = steady_clock::now();
    for (const Problem& problem : options.problems) validate(problem);
    for (const std::int64_t T : options.tokens) {
        if (T < 0) throw Error(ErrorCode::invalid_argument, fmt::format("tokens: expected 0 or more, got {}", T));
    }
    for (const PrewarmActivation& activation : options.activations) {
        static_cast<void>(name(activation.activation));
        static_cast<void>(name(activation.layout));
        if (activation.width < 1) {
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("activations: expected a width of at least 1, got {}", activation.width));
        }
        if (activation.dtype != DType::bf16 && activation.dtype != DType::fp16 && activation.dtype != DType::fp32) {
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("activations: expected bf16, fp16 or fp32, got {}", name(activation.dtype)));
        }
    }
    if (options.jobs < 0) {
        throw Error(ErrorCode::invalid_argument, fmt::format("jobs: expected 0 or more, got {}", options.jobs));
    }
    Engine::Impl& impl = engine.impl();
    const std::vector<Item> items = collect(options, impl);
    if (options.check_only) {
        PrewarmReport report;
        report.kernels = items.size();
        report.found = static_cast<std::size_t>(std::ranges::count_if(
            items, [&](const Item& item) { return impl.kernels.find_cached(item.spec, item.arch).has_value(); }));
        count_records(options, impl, report);
        report.seconds = duration<double>(steady_clock::now() - start).count();
        return report;
    }
    Prewarming prewarming(impl.kernels, items, progress);
    const int jobs = options.jobs > 0 ? options.jobs : impl.threads.threads();
    const int workers = std::min(jobs, static_cast<int>(std::max<std::size_t>(items.size(), 1)));
    // A pool of its own: compiling takes seconds, and the engine's pool may be wanted by operations meanwhile.
    util::ThreadPool pool(workers);
    pool.parallel_for(workers, [&](std::int64_t) { prewarming.work(); });
    PrewarmReport report = prewarming.take_report();
    count_records(options, impl, report);
    if (report.not_stored > 0) {
        report.warnings.push_back(fmt::format("{} of {} could not be stored in the cache", report.not_stored,
                                              util::counted(report.kernels, "kernel")));
    }
    report.seconds = duration<double>(steady_clock::now() - start).count();
    return report;
}

}  // namespace smlora
