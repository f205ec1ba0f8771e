// What the host does for a call: checking arguments, finding the plan, making a plan, and reading a cache entry.
#include "cache/entry.hpp"
#include "check/validate.hpp"
#include "plan/plan_table.hpp"
#include "tune/bucket.hpp"

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
    return {.bucket = tune::bucket_of(T), .tensor_cores = true, .vector_rows = true, .packing = {}};
}

void ValidateForward(benchmark::State& state) {
    const Problem p = qwen3();
    static char memory[16];  // never read: only the views are checked
    const std::int64_t M = T * p.top_k;
    ForwardArgs args;
    args.x = Tensor(memory, p.dtype, {T, p.K});
    args.W = Tensor(memory, p.dtype, {p.E, p.K, p.N});
    args.A = Tensor(memory, p.dtype, {p.E, p.R, p.K});
    args.B = Tensor(memory, p.dtype, {p.E, p.N, p.R}, {p.R, p.E * p.R, 1});
    args.routing.sorted_scattered_idxs = Tensor(memory, p.index_dtype, {M});
    args.routing.expert_offsets = Tensor(memory, p.index_dtype, {p.E});
    args.y = Tensor(memory, p.dtype, {M, p.N});
    args.xa = Tensor(memory, p.dtype, {M, p.R}, {padded_rank(p), 1});
    for (auto _ : state) benchmark::DoNotOptimize(check::validate_forward(p, args, Backend::cuda));
}
BENCHMARK(ValidateForward);

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
