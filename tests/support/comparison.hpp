// Comparing an output with its fp64 reference, as an expectation.
#pragma once

#include "workload/comparison.hpp"

#include <gtest/gtest.h>

namespace smlora::test {

class Comparison : public workload::Comparison {
 public:
    [[nodiscard]] testing::AssertionResult within(double tolerance) const {
        const std::string what = complaint(tolerance);
        return what.empty() ? testing::AssertionSuccess() : testing::AssertionFailure() << what;
    }
};

}  // namespace smlora::test
