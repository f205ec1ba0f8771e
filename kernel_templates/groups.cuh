// What belongs to a group of rows: where it begins and ends, its weight, its adapter and the adapter's scale.
#pragma once

#include "types.cuh"

namespace smlora {

/// A group of sorted rows shares a weight and an adapter. There is one for each expert, in order, with the expert's
/// weight and adapter; where LEFT_OUT, the entries that were left out are one more, the last, and have neither.
///
/// Groups of a band of experts have a table of their own in the place of expert_offsets: [E + 2], where each group
/// begins, and where the last one ends.
///
/// Of C: E, of a band those of the band; type Index.
template <class C, bool LEFT_OUT, bool BAND = false>
struct Groups {
    static constexpr int routed = C::E;  ///< groups that have a weight
    static constexpr int count = C::E + (LEFT_OUT ? 1 : 0);

    const typename C::Index* expert_offsets;
    const int& M;

    /// First sorted position.
    [[nodiscard]] __device__ __forceinline__ int first_row(int group) const {
        if constexpr (BAND) return static_cast<int>(expert_offsets[group]);
        return group == 0 ? 0 : static_cast<int>(expert_offsets[group - 1]);
    }

    /// One past the last sorted position.
    [[nodiscard]] __device__ __forceinline__ int end_row(int group) const {
        if constexpr (BAND) {
            return static_cast<int>(expert_offsets[group + 1]);
        } else if constexpr (LEFT_OUT) {
            const int end = M;
            return group == routed ? end : static_cast<int>(expert_offsets[group]);
        } else {
            return static_cast<int>(expert_offsets[group]);
        }
    }

    [[nodiscard]] __device__ __forceinline__ int rows(int group) const { return end_row(group) - first_row(group); }

    /// Which of the weights, and of the biases, it has; it is one of the routed.
    [[nodiscard]] static __device__ __forceinline__ int weight_of(int group) { return group; }

    /// Which of the adapters.
    [[nodiscard]] static __device__ __forceinline__ int adapter_of(int group) { return group; }

    /// The scale of its adapter, of which `scale` is the only one.
    [[nodiscard]] static __device__ __forceinline__ float scale_of(int /*group*/, float scale) { return scale; }
};

/// The groups of a product, which writes zeros to the rows of entries that were left out. Of C: BAND too, whether it
/// has the experts of a band.
template <class C>
using ProductGroups = Groups<C, true, C::BAND != 0>;

}  // namespace smlora
