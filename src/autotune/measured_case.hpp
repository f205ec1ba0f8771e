// What the tuner measures: a piece of work, and the rows that its candidates run on.
#pragma once

#include "plan/call_rows.hpp"
#include "plan/plan.hpp"
#include "tuning/device.hpp"
#include "tuning/random_routing.hpp"

#include <smlora/problem.hpp>

#include <cuda.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

namespace smlora::autotune {

/// The caller's rows, valid on `stream`; else T tokens are drawn from `skew`.
struct MeasuredRows {
    std::optional<plan::CallRows> callers = {};
    CUstream stream = nullptr;
    std::int64_t T = 1;
    tuning::Skew skew = tuning::Skew::uniform;
};

struct MeasuredCase {
    Problem problem;
    plan::Request request;
    plan::Role role = plan::Role::product;
    plan::Choices others;  ///< of the roles that are not measured
    MeasuredRows rows;
};

/// Makes what runs the candidates of a case.
using DeviceFactory = std::function<std::unique_ptr<tuning::Device>(const MeasuredCase&)>;

}  // namespace smlora::autotune
