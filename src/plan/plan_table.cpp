#include "plan/plan_table.hpp"

#include <array>
#include <atomic>

namespace smlora::plan {
namespace {

/// A thread's own table is direct-mapped: this only has to spread the handful of layers and operations of a model.
std::size_t slot_of(const PlanKey& key, std::size_t slots) {
    const Problem& p = key.problem;
    auto mix = static_cast<std::uint64_t>(p.K * 31 + p.N * 17 + p.E * 7 + p.R * 3 + p.top_k);
    mix = mix * 8 + static_cast<std::uint64_t>(p.x_rows) * 3 + static_cast<std::uint64_t>(p.y_rows);
    mix = (mix * 64 + key.variant.bucket) * 8 + static_cast<std::uint64_t>(key.variant.operation);
    mix *= 0x9E3779B97F4A7C15ULL;
    return static_cast<std::size_t>(mix >> 32) % slots;
}

struct Recent {
    std::uint64_t table = 0;
    PlanKey key;
    const Plan* plan = nullptr;
};

constexpr std::size_t recent_slots = 64;
thread_local std::array<Recent, recent_slots> recent_plans;

std::atomic<std::uint64_t> next_id{1};

}  // namespace

PlanTable::PlanTable() : id_(next_id.fetch_add(1)) {}

const Plan& PlanTable::get(const PlanKey& key, const std::function<Plan()>& make) {
    Recent& recent = recent_plans[slot_of(key, recent_slots)];
    if (recent.table == id_ && recent.key == key) return *recent.plan;

    const Plan* found = nullptr;
    {
        const std::scoped_lock lock(mutex_);
        for (const auto& entry : entries_) {
            if (entry->key == key) found = &entry->plan;
        }
    }
    if (found == nullptr) {
        // Outside the lock: this may compile for seconds. Two threads may make one plan; the kernels behind it are
        // compiled once all the same, and both plans are equal.
        auto entry = std::make_unique<Entry>(Entry{key, make()});
        found = &entry->plan;
        const std::scoped_lock lock(mutex_);
        entries_.push_back(std::move(entry));
    }
    recent = {id_, key, found};
    return *found;
}

}  // namespace smlora::plan
