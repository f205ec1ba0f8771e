// Quantised weights of random bytes, on the host and where an engine reads them.
#pragma once

#include "workload/random.hpp"

#include <smlora/memory.hpp>
#include <smlora/problem.hpp>
#include <smlora/weight.hpp>

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

namespace smlora::workload {

/// What to make: of a Weight all that is not memory.
struct EncodedShape {
    Encoding encoding = Encoding::nf4;
    std::int64_t E = 1, rows = 1, columns = 1;
    std::int64_t block = 0;  ///< 0: the usual one
    std::int64_t parts = 1;
    DType scales = DType::fp32;         ///< where the encoding leaves a choice
    std::int64_t double_quantized = 0;  ///< nf4, fp4: codes that share an outer scale; 0: not doubly quantised
    GlobalScale global_scale = GlobalScale::factor;
    bool arranged = false;  ///< all but int8: scales in the order of arrange_scales; with a deviation
    /// Of the values, roughly, which are finite then. 0: among the scales are zero, and subnormal, infinite and NaN
    /// where their type has such.
    double deviation = 0;
};

/// Weights as the problem describes them, with the deviation 1 / sqrt(K).
[[nodiscard]] EncodedShape encoded_shape(const Problem& problem);

/// The values of a weight on the host, row-major, rounded to `dtype`: what dequantize of the CPU backend says.
[[nodiscard]] std::vector<double> decoded(const Weight& on_host, DType dtype);

/// Every code is as likely as every other, but for those of fp8 beyond 1 where the values have a deviation.
class EncodedWeight {
 public:
    EncodedWeight(const Engine& engine, const EncodedShape& shape, const Random& random);

    [[nodiscard]] const Weight& weight() const { return weight_; }    ///< in the engine's memory
    [[nodiscard]] const Weight& on_host() const { return on_host_; }  ///< the same bytes
    [[nodiscard]] std::size_t bytes() const;                          ///< of the engine's memory
    /// Whether the engine's memory has still the bytes that it was given.
    [[nodiscard]] bool is_unchanged() const;

 private:
    std::list<std::vector<std::byte>> host_;
    std::list<Buffer> buffers_;
    Weight weight_, on_host_;
};

}  // namespace smlora::workload
