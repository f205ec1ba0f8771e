// Loaded plans by problem and variant.
#pragma once

#include "plan/plan.hpp"

#include <smlora/problem.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace smlora::plan {

struct PlanKey {
    Problem problem;
    Variant variant;
    void* context = nullptr;  ///< the CUcontext that the plan's kernels are loaded in

    friend bool operator==(const PlanKey&, const PlanKey&) = default;
};

/// Thread-safe. A plan that a thread has used before is found in a table of its own, without a lock.
class PlanTable {
 public:
    PlanTable();

    /// The plan of `key`, made by `make` if there is none yet; it lives as long as the table. What `make` throws passes
    /// through and leaves the table as it was.
    const Plan& get(const PlanKey& key, const std::function<Plan()>& make);

 private:
    struct Entry {
        PlanKey key;
        Plan plan;
    };

    const std::uint64_t id_;  // tells this table from others, past and present, in the threads' own tables
    std::mutex mutex_;
    std::vector<std::unique_ptr<Entry>> entries_;
};

}  // namespace smlora::plan
