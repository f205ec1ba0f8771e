// The groups of rows that a product multiplies: those of all experts, or of a band of them.
#pragma once

#include "groups.cuh"

namespace smlora {

/// Groups of a band of E experts, whose table stands in the place of expert_offsets: see UnpackWeightsArgs::band.
template <class C>
struct BandGroups : Groups<C, true> {
    [[nodiscard]] __device__ __forceinline__ int first_row(int group) const {
        return static_cast<int>(this->expert_offsets[group]);
    }
    [[nodiscard]] __device__ __forceinline__ int end_row(int group) const {
        return static_cast<int>(this->expert_offsets[group + 1]);
    }
    [[nodiscard]] __device__ __forceinline__ int rows(int group) const { return end_row(group) - first_row(group); }
};

template <class C, bool BAND>
struct ProductGroupsOf {
    using type = Groups<C, true>;
};
template <class C>
struct ProductGroupsOf<C, true> {
    using type = BandGroups<C>;
};

/// Of C: BAND too, whether it is a band. The last group, entries that were left out, has rows in the last band only.
template <class C>
using ProductGroups = typename ProductGroupsOf<C, C::BAND != 0>::type;

}  // namespace smlora
