#include "autotune/measurer.hpp"

#include "autotune/compare_results.hpp"
#include "cpu/convert.hpp"
#include "cpu/operations.hpp"
#include "gpu/driver.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

namespace smlora::autotune {
namespace {

// The reference takes a thread for each output, a tenth of a second for this many products.
constexpr double check_products = 3e10;
constexpr std::int64_t fewest_check_rows = 512;
constexpr std::int64_t most_check_rows = 4096;

// A prime, so that rows and experts of any shape start at different places of the repeated values.
constexpr std::int64_t pattern_elements = 1048573;

// Written to before a sample, so that the GPU is busy until the host has put the launches behind it.
constexpr std::int64_t occupied_bytes = std::int64_t{64} << 20;

// How the rows fall on tiles favours one candidate in one draw and another in the next, by several percent. As many
// draws as a tuning has rounds, and the same in every tuning: two of the same work differ by what the machine does
// alone.
constexpr std::int64_t routings = 9;
// Behind the seeds that people name, so that a choice that is timed on rows of their own was made on others.
constexpr std::uint64_t first_routing_seed = 1'000'000;

// Events tell half a microsecond, and launches of the shortest kernels differ by several percent: a sample is the mean
// of as many as fill this time.
constexpr double least_sample_seconds = 500e-6;
constexpr int most_launches = 16;

// Products one behind the other meet the chip's limit of power after some 20 ms, and run at the clock that all
// candidates together are left with from then on, where others of them are the fastest. After a rest as long as the
// sample each has the full clock; a sample that is longer than this slows down by itself.
constexpr double longest_rest_seconds = 20e-3;

CUdeviceptr address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

std::string encoded(const std::vector<float>& values, DType dtype) {
    std::string bytes(values.size() * size_of(dtype), '\0');
    for (std::size_t i = 0; i < values.size(); ++i) {
        char* const to = bytes.data() + i * size_of(dtype);
        if (dtype == DType::fp32) {
            std::memcpy(to, &values[i], 4);
        } else {
            const std::uint16_t bits =
                dtype == DType::bf16 ? cpu::to_bf16(values[i]).bits : cpu::to_fp16(values[i]).bits;
            std::memcpy(to, &bits, 2);
        }
    }
    return bytes;
}

std::int64_t check_tokens(const MeasuredWork& work, const Problem& problem, std::int64_t T) {
    const double affordable = check_products / std::max(work.products_a_row(), 1.0);
    const std::int64_t rows = std::clamp(static_cast<std::int64_t>(affordable), fewest_check_rows, most_check_rows);
    return std::clamp<std::int64_t>(rows / problem.top_k, 1, std::max<std::int64_t>(T, 1));
}

}  // namespace

class Measurer::OwnStream {
 public:
    OwnStream() { SMLORA_CUDA(cuStreamCreate, &stream_, CU_STREAM_NON_BLOCKING); }
    ~OwnStream() {
        gpu::driver().cuStreamSynchronize(stream_);
        gpu::driver().cuStreamDestroy(stream_);
    }
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;

    [[nodiscard]] CUstream handle() const noexcept { return stream_; }
    void synchronize() const { SMLORA_CUDA(cuStreamSynchronize, stream_); }

 private:
    CUstream stream_ = nullptr;
};

Measurer::Measurer(Engine::Impl& engine, const MeasuredCase& measured)
    : engine_(engine),
      context_(engine.contexts, engine.options.device),
      case_(measured),
      stream_(std::make_unique<OwnStream>()),
      call_(engine, Stream{stream_->handle()}),
      work_(measured_work(measured.problem, measured.request, measured.role, call_.facts())),
      check_T_(check_tokens(*work_, measured.problem, measured.rows.T)) {}

Measurer::~Measurer() {
    buffers_.clear();
    // Errors are not looked at: what is not given back now is taken by the next buffers.
    gpu::driver().cuStreamSynchronize(stream_->handle());
    try {
        gpu::trim_pool();
    } catch (const Error&) {
    }
}

double Measurer::now() { return clock_(); }

jit::KernelLibrary& Measurer::kernels() { return engine_.kernels; }

tuning::MemoryNeed Measurer::memory_need() {
    tuning::MemoryNeed need;
    const std::vector<Operand> operands = work_->operands(case_.rows.T);
    const std::vector<Operand> check = work_->operands(check_T_);
    for (std::size_t i = 0; i < operands.size(); ++i) {
        need.set_bytes += static_cast<std::uint64_t>(std::max(operands[i].bytes, check[i].bytes));
    }
    const std::int64_t draws = case_.rows.callers ? 0 : routings;
    const std::int64_t indices =
        (draws * case_.rows.T + check_T_) * case_.problem.top_k + (draws + 1) * case_.problem.E;
    need.fixed_bytes = static_cast<std::uint64_t>(occupied_bytes + 3 * pattern_elements * 4 + indices * 8);
    need.l2_bytes = call_.facts().l2_bytes;
    std::size_t free = 0;
    std::size_t total = 0;
    SMLORA_CUDA(cuMemGetInfo, &free, &total);
    need.free_bytes = free;
    return need;
}

plan::Plan Measurer::make(const tuning::Candidate& candidate) const {
    plan::Choices choices = case_.others;
    choices.set(case_.role, candidate.configuration);
    plan::Plan whole = plan::make_plan(case_.problem, case_.request, call_.facts(), choices);
    plan::Plan plan;
    for (const plan::Role role : work_->roles()) {
        if (whole.has(role)) plan.set(role, whole.at(role));
    }
    return plan;
}

std::size_t Measurer::parts() { return work_->roles().size(); }

std::optional<tuning::Preparation> Measurer::find(const tuning::Candidate& candidate, std::size_t part) {
    return preparation(candidate, part,
                       [&](const jit::KernelSpec& spec) { return kernels().find_cached(spec, call_.facts().arch); });
}

tuning::Preparation Measurer::prepare(const tuning::Candidate& candidate, std::size_t part) {
    return *preparation(candidate, part, [&](const jit::KernelSpec& spec) {
        return std::optional(kernels().ensure_cached(spec, call_.facts().arch));
    });
}

template <class Obtain>
std::optional<tuning::Preparation> Measurer::preparation(const tuning::Candidate& candidate, std::size_t part,
                                                         const Obtain& obtain) {
    tuning::Preparation preparation;
    try {
        const plan::Plan plan = make(candidate);
        const plan::Role role = work_->roles().at(part);
        if (!plan.has(role)) return preparation;
        const std::optional<jit::CompileResult> result = obtain(plan.at(role).spec);
        if (!result) return std::nullopt;
        preparation.compile_seconds = result->compile_seconds;
        const std::vector<plan::Role> own = work_->own_roles();
        if (std::find(own.begin(), own.end(), role) == own.end()) return preparation;
        preparation.registers = result->registers;
        preparation.spill_bytes = result->spill_bytes;
    } catch (const Error& error) {
        if (error.code() != ErrorCode::compile && error.code() != ErrorCode::unsupported) throw;
        preparation.refusal = error.what();
    }
    return preparation;
}

std::optional<jit::KernelSpec> Measurer::reference_kernel(std::size_t part) const {
    const plan::Plan plan = work_->reference_plan();
    for (const auto& step : plan.steps) {
        if (step && part-- == 0) return step->spec;
    }
    return std::nullopt;
}

std::optional<tuning::Preparation> Measurer::find_reference(std::size_t part) {
    const std::optional<jit::KernelSpec> spec = reference_kernel(part);
    if (spec && !kernels().find_cached(*spec, call_.facts().arch)) return std::nullopt;
    return tuning::Preparation{};
}

tuning::Preparation Measurer::prepare_reference(std::size_t part) {
    tuning::Preparation preparation;
    if (const std::optional<jit::KernelSpec> spec = reference_kernel(part)) {
        preparation.compile_seconds = kernels().ensure_cached(*spec, call_.facts().arch).compile_seconds;
    }
    return preparation;
}

const plan::Plan& Measurer::plan_of(const tuning::Candidate& candidate) {
    const auto known = plans_.find(candidate.name);
    if (known != plans_.end()) return known->second;
    plan::Plan plan = make(candidate);
    call_.load(plan);
    return plans_.emplace(candidate.name, std::move(plan)).first->second;
}

gpu::StreamBuffer& Measurer::new_buffer(std::int64_t bytes) {
    return buffers_.emplace_back(stream_->handle(), static_cast<std::size_t>(bytes));
}

plan::CallRows Measurer::upload_routed(std::vector<std::int64_t> top_idx) {
    const Problem& problem = case_.problem;
    const auto M = static_cast<std::int64_t>(top_idx.size());
    const auto array = [&](std::string& bytes, std::int64_t length) {
        bytes.resize(static_cast<std::size_t>(length) * size_of(problem.index_dtype));
        return Tensor(bytes.data(), problem.index_dtype, {length});
    };
    std::string experts;
    std::string scattered;
    std::string offsets;
    RouteArgs args;
    args.top_idx = Tensor(top_idx.data(), DType::int64, {M / problem.top_k, problem.top_k});
    args.routing = {array(experts, M), array(scattered, M), array(offsets, problem.E)};
    cpu::route(engine_.threads, problem, args);

    const auto upload = [&](const std::string& bytes, const Tensor& host) {
        gpu::StreamBuffer& buffer = new_buffer(static_cast<std::int64_t>(bytes.size()));
        stream_->synchronize();
        SMLORA_CUDA(cuMemcpyHtoD, buffer.address(), bytes.data(), bytes.size());
        return Tensor(buffer.data(), host.dtype, {host.numel()});
    };
    plan::CallRows rows;
    rows.T = M / problem.top_k;
    rows.routing.sorted_scattered_idxs = upload(scattered, args.routing.sorted_scattered_idxs);
    rows.routing.expert_offsets = upload(offsets, args.routing.expert_offsets);
    return rows;
}

void Measurer::fill(gpu::StreamBuffer& buffer, const Operand& operand, std::size_t number) {
    const auto copy = [&](std::size_t to, CUdeviceptr from, std::size_t bytes) {
        if (bytes > 0) SMLORA_CUDA(cuMemcpyDtoDAsync, buffer.address() + to, from, bytes, stream_->handle());
    };
    std::size_t filled = 0;
    if (operand.pattern) {
        filled = std::min(operand.pattern->size(), buffer.bytes());
        stream_->synchronize();
        SMLORA_CUDA(cuMemcpyHtoD, buffer.address(), operand.pattern->data(), filled);
    } else {
        // Another beginning for each, then whole periods: two operands never hold the same rows.
        const gpu::StreamBuffer& pattern = *patterns_.at({operand.dtype, operand.gates});
        const std::size_t offset =
            (number * 104729 % static_cast<std::size_t>(pattern_elements)) * size_of(operand.dtype);
        filled = std::min(pattern.bytes() - offset, buffer.bytes());
        copy(0, pattern.address() + offset, filled);
        const std::size_t rest = std::min(offset, buffer.bytes() - filled);
        copy(filled, pattern.address(), rest);
        filled += rest;
    }
    while (filled < buffer.bytes()) {
        const std::size_t more = std::min(filled, buffer.bytes() - filled);
        copy(filled, buffer.address(), more);
        filled += more;
    }
}

void Measurer::allocate(int sets, std::uint64_t seed) {
    occupied_ = &new_buffer(occupied_bytes);
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(pattern_elements));
    for (float& value : values) value = normal(random);
    std::vector<float> gates(values.size());
    // Of size 1 at most: gates that are normal, too, would make terms of a gradient many times its size, and where such
    // cancel the difference is their rounding.
    std::transform(values.begin(), values.end(), gates.begin(),
                   [](float value) { return value / (1 + std::abs(value)); });
    const std::vector<Operand> operands = work_->operands(case_.rows.T);
    const std::vector<Operand> check = work_->operands(check_T_);
    for (const Operand& operand : operands) {
        const std::pair key{operand.dtype, operand.gates};
        if (!operand.input || operand.pattern || operand.bytes == 0 || patterns_.count(key) != 0) continue;
        const std::string bytes = encoded(operand.gates ? gates : values, operand.dtype);
        gpu::StreamBuffer& pattern = new_buffer(static_cast<std::int64_t>(bytes.size()));
        stream_->synchronize();
        SMLORA_CUDA(cuMemcpyHtoD, pattern.address(), bytes.data(), bytes.size());
        patterns_[key] = &pattern;
    }
    std::size_t number = 0;
    for (int set = 0; set < sets; ++set) {
        std::vector<void*> addresses;
        for (std::size_t i = 0; i < operands.size(); ++i) {
            gpu::StreamBuffer& buffer = new_buffer(std::max(operands[i].bytes, check[i].bytes));
            if (operands[i].input && buffer.bytes() > 0) fill(buffer, operands[i], ++number);
            addresses.push_back(buffer.data());
            if (set == 0) first_set_.push_back(&buffer);
        }
        sets_.push_back(std::move(addresses));
    }

    const auto draw = [&](std::int64_t T, double left_out, tuning::Skew skew, std::uint64_t seed_of_draw) {
        return tuning::random_top_idx(T, case_.problem.top_k, case_.problem.E, skew, left_out, seed_of_draw);
    };
    // Uneven on purpose: experts without rows, with a few, with several tiles; and entries that are left out.
    const std::vector<std::int64_t> checked = draw(check_T_, 0.05, tuning::Skew::zipf, seed);
    check_kept_ = std::count_if(checked.begin(), checked.end(), [](std::int64_t expert) { return expert >= 0; });
    check_rows_ = upload_routed(checked);
    if (case_.rows.callers) {
        rows_ = {*case_.rows.callers};
        gpu::Event ready;
        ready.record(case_.rows.stream);
        SMLORA_CUDA(cuStreamWaitEvent, stream_->handle(), ready.handle(), 0);
    } else {
        std::vector<std::vector<std::int64_t>> drawn(routings);
        engine_.threads.parallel_for(routings, [&](std::int64_t i) {
            drawn[static_cast<std::size_t>(i)] =
                draw(case_.rows.T, 0, case_.rows.skew, first_routing_seed + static_cast<std::uint64_t>(i));
        });
        for (std::vector<std::int64_t>& top_idx : drawn) rows_.push_back(upload_routed(std::move(top_idx)));
    }
    events_.emplace();

    reference_ = work_->reference_plan();
    call_.load(reference_);
    expected_ = run_and_fetch(reference_);
}

plan::Plan Measurer::with_references(plan::Plan plan) const {
    const std::vector<plan::Role> own = work_->own_roles();
    for (const plan::Role role : work_->roles()) {
        const bool others = std::find(own.begin(), own.end(), role) == own.end();
        if (others && plan.has(role) && reference_.has(role)) plan.set(role, reference_.at(role));
    }
    return plan;
}

void Measurer::poison_outputs() {
    const std::vector<Operand> operands = work_->operands(check_T_);
    for (std::size_t i = 0; i < operands.size(); ++i) {
        // All ones is a NaN in every format.
        if (operands[i].input || first_set_[i]->bytes() == 0) continue;
        SMLORA_CUDA(cuMemsetD8Async, first_set_[i]->address(), 0xFF, first_set_[i]->bytes(), stream_->handle());
    }
}

std::vector<std::string> Measurer::run_and_fetch(const plan::Plan& plan) {
    poison_outputs();
    work_->launch(call_.launcher(), plan, sets_[0], check_rows_);
    stream_->synchronize();
    std::vector<std::string> results;
    const std::vector<Operand> operands = work_->operands(check_T_);
    for (const Output& output : work_->outputs(check_T_)) {
        const DType dtype = operands[output.operand].dtype;
        std::string bytes(static_cast<std::size_t>(output.matrix.rows * output.matrix.columns) * size_of(dtype), '\0');
        SMLORA_CUDA(cuMemcpyDtoH, bytes.data(), address(sets_[0][output.operand]), bytes.size());
        results.push_back(std::move(bytes));
    }
    return results;
}

tuning::Verification Measurer::verify(const tuning::Candidate& candidate) {
    std::vector<std::string> got;
    try {
        got = run_and_fetch(with_references(plan_of(candidate)));
    } catch (const Error& error) {
        if (error.code() != ErrorCode::compile && error.code() != ErrorCode::unsupported) throw;
        return {error.what(), 1.0};
    }
    const std::vector<Operand> operands = work_->operands(check_T_);
    const std::vector<Output> outputs = work_->outputs(check_T_);
    tuning::Verification worst;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        ResultMatrix matrix = outputs[i].matrix;
        if (outputs[i].grouped) matrix.rows = check_kept_;
        const tuning::Verification one = compare_results(
            got[i], expected_[i], matrix, operands[outputs[i].operand].dtype, case_.problem.dtype, engine_.threads);
        if (!one.refusal.empty()) return one;
        worst.error = std::max(worst.error, one.error);
    }
    return worst;
}

void Measurer::occupy(int launches) {
    const int passes = 1 + launches / 4;
    for (int pass = 0; pass < passes; ++pass) {
        SMLORA_CUDA(cuMemsetD8Async, occupied_->address(), 0, occupied_->bytes(), stream_->handle());
    }
}

double Measurer::time(const tuning::Candidate& candidate, int set, std::size_t round) {
    const plan::CallRows& rows = rows_[round % rows_.size()];
    const plan::Plan& plan = plan_of(candidate);
    const auto run = [&](int launches) {
        occupy(launches);
        events_->start(stream_->handle());
        for (int i = 0; i < launches; ++i) {
            work_->launch(call_.launcher(), plan, sets_[static_cast<std::size_t>(set * launches + i) % sets_.size()],
                          rows);
        }
        events_->stop(stream_->handle());
        const double seconds = static_cast<double>(events_->milliseconds()) * 1e-3;
        std::this_thread::sleep_for(std::chrono::duration<double>(std::min(seconds, longest_rest_seconds)));
        return seconds / launches;
    };
    const auto known = launches_.find(candidate.name);
    if (known != launches_.end()) return run(known->second);
    // The first tells how many launches a sample needs, and is what a first one suffers.
    const double estimate = std::max(run(1), 1e-6);
    const int launches = std::clamp(static_cast<int>(std::ceil(least_sample_seconds / estimate)), 1, most_launches);
    launches_[candidate.name] = launches;
    return run(launches);
}

}  // namespace smlora::autotune
