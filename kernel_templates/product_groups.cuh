// The groups of rows that a product multiplies: those of all experts, or of a slice of them.
#pragma once

#include "groups.cuh"

namespace smlora {

/// Groups of a slice of E experts, whose table stands in the place of expert_offsets: see UnpackWeightsArgs::slice.
template <class C>
struct SliceGroups : Groups<C, true> {
    [[nodiscard]] __device__ __forceinline__ int first_row(int group) const {
        return static_cast<int>(this->expert_offsets[group]);
    }
    [[nodiscard]] __device__ __forceinline__ int end_row(int group) const {
        return static_cast<int>(this->expert_offsets[group + 1]);
    }
    [[nodiscard]] __device__ __forceinline__ int rows(int group) const { return end_row(group) - first_row(group); }
};

template <class C, bool SLICE>
struct ProductGroupsOf {
    using type = Groups<C, true>;
};
template <class C>
struct ProductGroupsOf<C, true> {
    using type = SliceGroups<C>;
};

/// Of C: SLICE too, whether it is a slice. The last group, entries that were left out, has rows in the last slice only.
template <class C>
using ProductGroups = typename ProductGroupsOf<C, C::SLICE != 0>::type;

}  // namespace smlora
