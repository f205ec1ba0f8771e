// What the host does for a call: checking arguments, finding the plan, making a plan, and reading a cache entry.
#include "cache/entry.hpp"
#include "check/validate.hpp"
#include "plan/plan_table.hpp"
#include "tuning/bucket.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

namespace smlora {
namespace {

constexpr std::int64_t T = 2048;

/// gate_up of Qwen3-30B-A3B.
Problem qwen3() {
    Problem problem;
    problem.E = 128;
    problem.K = 2048;
    problem.N = 1536;
    problem.R = 16;
    problem.top_k = 8;
    return problem;
}

plan::Forward request() {
    return {.bucket = tuning::bucket_of(T), .tensor_cores = true, .vector_rows = true, .packing = {}};
}

/// Distinct addresses that are never read: only the views are checked.
void* address(std::int64_t argument) { return reinterpret_cast<void*>(argument << 32); }

Routing routing(const Problem& p, std::int64_t M) {
    return {{}, Tensor(address(1), p.index_dtype, {M}), Tensor(address(2), p.index_dtype, {p.E})};
}

void ValidateForward(benchmark::State& state) {
    const Problem p = qwen3();
    const std::int64_t M = T * p.top_k;
    ForwardArgs args;
    args.routing = routing(p, M);
    args.x = Tensor(address(3), p.dtype, {T, p.K});
    args.W = Tensor(address(4), p.dtype, {p.E, p.K, p.N});
    args.A = Tensor(address(5), p.dtype, {p.E, p.R, p.K});
    args.B = Tensor(address(6), p.dtype, {p.E, p.N, p.R}, {p.R, p.E * p.R, 1});
    args.y = Tensor(address(7), p.dtype, {M, p.N});
    args.xa = Tensor(address(8), p.dtype, {M, p.R}, {padded_rank(p), 1});
    for (auto _ : state) benchmark::DoNotOptimize(check::validate_forward(p, args, Backend::cuda));
}
BENCHMARK(ValidateForward);

void ValidateBackwardLora(benchmark::State& state) {
    const Problem p = qwen3();
    const std::int64_t M = T * p.top_k;
    BackwardLoraArgs args;
    args.routing = routing(p, M);
    args.x = Tensor(address(3), p.dtype, {T, p.K});
    args.dy = Tensor(address(4), p.dtype, {M, p.N});
    args.xa = Tensor(address(5), p.dtype, {M, p.R}, {padded_rank(p), 1});
    args.yb = Tensor(address(6), p.dtype, {M, p.R}, {padded_rank(p), 1});
    args.dA = Tensor(address(7), p.dtype, {p.E, p.R, p.K});
    args.dB = Tensor(address(8), p.dtype, {p.E, p.N, p.R}, {p.R, p.E * p.R, 1});
    for (auto _ : state) benchmark::DoNotOptimize(check::validate_backward_lora(p, args, Backend::cuda));
}
BENCHMARK(ValidateBackwardLora);

void FindPlan(benchmark::State& state) {
    const gpu::DeviceFacts facts = gpu::facts_of(gpu::arch_from_name("sm_90a"));
    plan::PlanTable table;
    const plan::PlanKey key{qwen3(), request(), nullptr};
    static_cast<void>(table.insert(key, plan::make_plan(key.problem, key.request, facts)));
    for (auto _ : state) benchmark::DoNotOptimize(table.find(key));
}
BENCHMARK(FindPlan);

void MakePlan(benchmark::State& state) {
    const gpu::DeviceFacts facts = gpu::facts_of(gpu::arch_from_name("sm_90a"));
    for (auto _ : state) benchmark::DoNotOptimize(plan::make_plan(qwen3(), request(), facts));
}
BENCHMARK(MakePlan);

void DecodeEntry(benchmark::State& state) {
    cache::KernelEntry entry;
    entry.metadata = {{"kernel", "grouped_product_mma"}, {"registers", 240}};
    entry.cubin.assign(static_cast<std::size_t>(state.range(0)), '\x7f');
    entry.cubin.replace(0, 4,
                        "\x7f"
                        "ELF");
    const std::string bytes = cache::encode(entry);
    for (auto _ : state) {
        std::string why;
        benchmark::DoNotOptimize(cache::decode(bytes, why));
    }
    state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes.size()));
}
BENCHMARK(DecodeEntry)->Arg(32 << 10)->Arg(128 << 10);

}  // namespace
}  // namespace smlora
