// Decoding quantised weights.
#pragma once

#include "args/unpack_weights.h"
#include "families/step.hpp"

#include <smlora/problem.hpp>
#include <smlora/weight.hpp>

#include <cstdint>

namespace smlora::families {

/// What the kernel is specialised for: all of a weight but the number of experts and the memory.
struct UnpackWork {
    Encoding encoding = Encoding::plain;
    DType scales = DType::fp32;
    std::int64_t rows = 0;
    std::int64_t columns = 0;
    std::int64_t block = 0;
    std::int64_t parts = 1;
    std::int64_t outer_block = 0;  ///< of doubly quantised scales; 0: they are not
    GlobalScale global_scale = GlobalScale::factor;
    bool vectors = false;  ///< 16 bytes of the result, and its codes, at once

    friend bool operator==(const UnpackWork&, const UnpackWork&) = default;
};

/// `out`: as UnpackWeightsArgs has it, of this type.
[[nodiscard]] UnpackWork unpack_work(const Weight& weight, const void* out, DType dtype);

/// To problem.dtype; with the routing of problem.index_dtype.
[[nodiscard]] Step unpack_step(const Problem& problem, const UnpackWork& work);

/// All experts into `out`. A caller that wants some of them says so.
[[nodiscard]] UnpackWeightsArgs unpack_args(const Weight& weight, void* out);

}  // namespace smlora::families
