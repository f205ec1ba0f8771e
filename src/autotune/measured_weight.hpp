// An arranged weight of random values, as products that decode it read it.
#pragma once

#include <smlora/problem.hpp>
#include <smlora/weight.hpp>

#include <cstdint>
#include <memory>
#include <string>

namespace smlora::autotune {

/// What a part of the weight holds: `pattern` again and again.
struct WeightPart {
    std::int64_t bytes = 0;
    std::shared_ptr<const std::string> pattern;
};

/// Each 64 x 64 values have the same scales.
class MeasuredWeight {
 public:
    /// Of the problem's weights, which are arranged.
    explicit MeasuredWeight(const Problem& problem);

    [[nodiscard]] const WeightPart& codes() const { return codes_; }
    [[nodiscard]] const WeightPart& scales() const { return scales_; }
    /// The values of nf4's and fp4's codes, or nvfp4's global scale.
    [[nodiscard]] const WeightPart& values() const { return values_; }

    /// The weight whose parts lie there.
    [[nodiscard]] Weight at(void* codes, void* scales, void* values) const;

 private:
    Problem problem_;
    WeightPart codes_, scales_, values_;
};

}  // namespace smlora::autotune
