// Loaded plans by problem and request.
#pragma once

#include "plan/plan.hpp"

#include <smlora/problem.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace smlora::plan {

struct PlanKey {
    Problem problem;
    Request request;
    void* context = nullptr;  ///< the CUcontext that the plan's kernels are loaded in

    friend bool operator==(const PlanKey&, const PlanKey&) = default;
};

/// Thread-safe. A plan that a thread has used before is found in a table of its own, without a lock.
class PlanTable {
 public:
    PlanTable();

    /// The plan of `key`, which lives as long as the table; null if there is none yet. Allocates nothing.
    [[nodiscard]] const Plan* find(const PlanKey& key);

    /// The plan of `key` from now on: `plan`, or the equal one of a thread that was faster.
    const Plan& insert(const PlanKey& key, Plan plan);

 private:
    struct Hash {
        std::size_t operator()(const PlanKey& key) const noexcept;
    };

    const std::uint64_t id_;  // tells this table from others, past and present, in the threads' own tables
    std::mutex mutex_;
    std::unordered_map<PlanKey, std::unique_ptr<const Plan>, Hash> plans_;
};

}  // namespace smlora::plan
