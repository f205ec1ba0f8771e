#include "plan/plan_table.hpp"

#include <array>
#include <atomic>
#include <utility>

namespace smlora::plan {
namespace {

/// Spreads what a process has many of: the layers of a model, their operations, and lengths of batches.
std::uint64_t hash_of(const PlanKey& key) {
    const Problem& p = key.problem;
    auto mix = static_cast<std::uint64_t>(p.K * 31 + p.N * 17 + p.E * 7 + p.R * 3 + p.top_k);
    mix = mix * 8 + static_cast<std::uint64_t>(p.x_rows) * 3 + static_cast<std::uint64_t>(p.y_rows);
    mix = (mix * 64 + bucket(key.request)) * 8 + key.request.index();
    return mix * 0x9E3779B97F4A7C15ULL;
}

struct Recent {
    std::uint64_t table = 0;
    PlanKey key;
    const Plan* plan = nullptr;
};

/// A thread's own table is direct-mapped.
Recent& recent_of(const PlanKey& key) {
    constexpr std::size_t plans = 64;
    thread_local std::array<Recent, plans> recent_plans;
    return recent_plans[static_cast<std::size_t>(hash_of(key) >> 32) % plans];
}

std::atomic<std::uint64_t> next_id{1};

}  // namespace

std::size_t PlanTable::Hash::operator()(const PlanKey& key) const noexcept {
    return static_cast<std::size_t>(hash_of(key) >> 16);
}

PlanTable::PlanTable() : id_(next_id.fetch_add(1)) {}

const Plan* PlanTable::find(const PlanKey& key) {
    Recent& recent = recent_of(key);
    if (recent.table == id_ && recent.key == key) return recent.plan;
    const std::lock_guard lock(mutex_);
    const auto found = plans_.find(key);
    if (found == plans_.end()) return nullptr;
    recent = {id_, key, found->second.get()};
    return recent.plan;
}

const Plan& PlanTable::insert(const PlanKey& key, Plan plan) {
    auto made = std::make_unique<const Plan>(std::move(plan));
    const std::lock_guard lock(mutex_);
    return *plans_.try_emplace(key, std::move(made)).first->second;
}

}  // namespace smlora::plan
