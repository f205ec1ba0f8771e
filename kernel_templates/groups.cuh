// What belongs to a group of rows: where it begins and ends, its weight, its adapter and the adapter's scale.
#pragma once

#include "types.cuh"

namespace smlora {

/// A group of sorted rows shares a weight and an adapter. There is one for each expert, in order, with the expert's
/// weight and adapter; where LEFT_OUT, the entries that were left out are one more, the last, and have neither.
///
/// Of C: E; type Index.
template <class C, bool LEFT_OUT>
struct Groups {
    static constexpr int routed = C::E;  ///< groups that have a weight
    static constexpr int count = C::E + (LEFT_OUT ? 1 : 0);

    const typename C::Index* expert_offsets;
    const int& M;

    /// First sorted position.
    [[nodiscard]] __device__ __forceinline__ int first_row(int group) const {
        return group == 0 ? 0 : static_cast<int>(expert_offsets[group - 1]);
    }

    /// One past the last sorted position.
    [[nodiscard]] __device__ __forceinline__ int end_row(int group) const {
        if constexpr (LEFT_OUT) {
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

}  // namespace smlora
