// Weights of the products without tensor cores.
#pragma once

#include "types.cuh"
#include "weight/plain.cuh"

namespace smlora::weight {

/// One matrix. MAJOR 0: the reduction is contiguous, 1: the outputs are.
template <class Format, class Element, int MAJOR>
struct Simt;

template <class Element, int MAJOR>
struct Simt<Plain, Element, MAJOR> {
    const Element* matrix;
    int64 row_stride;

    /// The weight of output `out` at place `red` of the reduction.
    template <class Int>
    [[nodiscard]] __device__ __forceinline__ float at(Int red, Int out) const {
        return to_float(MAJOR == 0 ? matrix[out * row_stride + red] : matrix[red * row_stride + out]);
    }
};

}  // namespace smlora::weight
