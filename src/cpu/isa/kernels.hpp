// The inner loops of a product, compiled once for each instruction set from one source (kernels.cpp).
#pragma once

#include <smlora/dtype.hpp>

#include <cstdint>
#include <vector>

namespace smlora::cpu {

/// One factor of a product, seen as element(outer, k): k is the index that is summed over, outer that of the factor's
/// rows (left) or columns (right). Either index may go through a table, which is how rows are gathered.
/// Offsets count elements.
template <class Acc>
struct Factor {
    const void* data = nullptr;
    DType dtype = DType::fp32;  ///< bf16, fp16 or fp32 where Acc is float; fp32 or fp64 where it is double
    std::int64_t outer_stride = 0;
    std::int64_t k_stride = 0;
    const std::int64_t* outer_index = nullptr;  ///< null: the index itself
    const std::int64_t* k_index = nullptr;      ///< null: the index itself
    const Acc* k_scale = nullptr;               ///< null: 1. Multiplies each element, indexed before k_index
};

/// All pointers to packed memory are 64-byte aligned.
template <class Acc>
struct Kernels {
    std::int64_t rows;     ///< of the register block
    std::int64_t columns;  ///< of the register block

    /// Converts element(outer0 .. outer0 + outers - 1, k0 .. k0 + depth - 1) to panels of `rows` outer indices, each
    /// laid out [depth][rows]; the last panel is filled up with zeros.
    void (*pack_left)(const Factor<Acc>& factor, std::int64_t outer0, std::int64_t outers, std::int64_t k0,
                      std::int64_t depth, Acc* packed);
    /// The same in panels of `columns`.
    void (*pack_right)(const Factor<Acc>& factor, std::int64_t outer0, std::int64_t outers, std::int64_t k0,
                       std::int64_t depth, Acc* packed);
    /// c[rows][columns], with the row stride c_stride, += left[depth][rows]^T right[depth][columns], summed in the
    /// order of depth in a register for each element.
    void (*multiply)(std::int64_t depth, const Acc* left, const Acc* right, Acc* c, std::int64_t c_stride);
};

struct KernelSet {
    Kernels<float> fp32;
    Kernels<double> fp64;

    template <class Acc>
    [[nodiscard]] const Kernels<Acc>& get() const {
        if constexpr (sizeof(Acc) == sizeof(float)) {
            return fp32;
        } else {
            return fp64;
        }
    }
};

/// Those that this machine can run, the fastest first; never empty.
[[nodiscard]] const std::vector<KernelSet>& kernel_sets();

}  // namespace smlora::cpu
