// An adapter as the kernels of a product take it.
#pragma once

#include <cstdint>

namespace smlora::families {

/// A or B: for each expert a row-major matrix.
struct AdapterMatrix {
    const void* data = nullptr;
    std::int64_t expert_stride = 0;
    std::int64_t row_stride = 0;
};

/// The adapter of a product: out_i += rank row_i adapted_e, where rank row_i = scaling row(i) ranked_e.
struct Adapter {
    AdapterMatrix ranked;   ///< forward: A, dX: B
    AdapterMatrix adapted;  ///< forward: B, dX: A
    float scaling = 1.0F;
    void* rank_rows = nullptr;  ///< written: XA or YB
    void* scratch = nullptr;    ///< memory of product_scratch_bytes()
};

}  // namespace smlora::families
