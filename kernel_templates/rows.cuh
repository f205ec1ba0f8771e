// Where the rows are that a kernel reads or writes by sorted position, and what it makes of what it reads.
#pragma once

#include "types.cuh"

namespace smlora {

/// How rows lie in memory; the values are those of smlora::RowOrder in the public interface.
enum RowOrder : int { rows_token = 0, rows_scattered = 1, rows_grouped = 2 };

/// Values are taken as they are stored.
struct AsStored {
    static constexpr bool identity = true;

    /// What stands for `value`, of flat entry `flat` and column `column`.
    [[nodiscard]] static __device__ __forceinline__ float apply(float value, const int& /*flat*/, int /*column*/) {
        return value;
    }
};

/// The rows of a [T, *] or [M, *] tensor in the order ORDER. Kernels that copy rows without looking at them assert
/// `as_stored`; the others read their values with value().
template <class Element, int ORDER, int TOP_K, class Transform = AsStored>
struct Rows {
    static constexpr bool needs_flat = ORDER != rows_grouped;
    static constexpr bool as_stored = Transform::identity;

    Element* data;
    int64 stride;  ///< elements

    /// The row that sorted position `position` with flat entry `flat` uses.
    [[nodiscard]] static __device__ __forceinline__ int index(int position, int flat) {
        if constexpr (ORDER == rows_token) return flat / TOP_K;
        if constexpr (ORDER == rows_scattered) return flat;
        return position;
    }

    /// The same, looked up only if the order needs it.
    template <class Index>
    [[nodiscard]] static __device__ __forceinline__ int index(int position, const Index* scattered_idxs) {
        if constexpr (needs_flat) {
            return index(position, static_cast<int>(scattered_idxs[position]));
        } else {
            return position;
        }
    }

    /// Elements before row `index`.
    [[nodiscard]] __device__ __forceinline__ int64 offset(int index) const { return index * stride; }

    [[nodiscard]] __device__ __forceinline__ Element* address(int index) const { return data + offset(index); }

    /// What is made of an element of the row that flat entry `flat` uses.
    [[nodiscard]] static __device__ __forceinline__ float value(const Element& element, const int& flat, int64 column) {
        return Transform::apply(to_float(element), flat, static_cast<int>(column));
    }
};

}  // namespace smlora
