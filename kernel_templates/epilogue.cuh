// What becomes of a product's sum before it is rounded and stored: gate and bias.
#pragma once

#include "args/grouped_product.h"
#include "types.cuh"

namespace smlora {

/// result = sum factor(row) + bias(column), factor = scale gate. A kernel reads the row's and the column's part where
/// it has them at hand and applies both to the sum; what else belongs to rows or columns (a column's scale) becomes a
/// member of Row or Column. SCALED: sums are multiplied with a scale, too.
///
/// Of C: OUT, HAS_GATES, HAS_BIAS; types Element, Gate.
template <class C, bool SCALED>
struct Epilogue {
    struct Row {
        float factor;
    };
    struct Column {
        float bias = 0.0F;
    };

    const GroupedProductArgs& args;

    /// Of an entry that was left out; `scale` if SCALED.
    [[nodiscard]] static __device__ __forceinline__ Row row(float scale = 1.0F) { return {scale}; }

    /// Makes `row`, as row() gives it, that of flat entry `flat`, which is read only if there are gates.
    __device__ __forceinline__ void read_row(Row& row, const int& flat) const {
        if constexpr (C::HAS_GATES != 0) {
            const float gate = to_float(static_cast<const typename C::Gate*>(args.gates)[flat]);
            if constexpr (SCALED) {
                row.factor *= gate;
            } else {
                row.factor = gate;
            }
        }
    }

    /// Of COUNT neighbouring columns of an expert.
    template <int COUNT>
    __device__ __forceinline__ void read_columns(Column (&columns)[COUNT], int expert, int column) const {
        if constexpr (C::HAS_BIAS != 0) {
            const auto* const from =
                static_cast<const typename C::Element*>(args.bias) + static_cast<int64>(expert) * C::OUT + column;
#pragma unroll
            for (int i = 0; i < COUNT; ++i) columns[i].bias = to_float(from[i]);
        }
    }

    [[nodiscard]] static __device__ __forceinline__ float apply(float sum, const Row& row, const Column& column) {
        if constexpr (SCALED) return sum * row.factor + column.bias;
        if constexpr (C::HAS_GATES != 0) sum *= row.factor;
        if constexpr (C::HAS_BIAS != 0) sum += column.bias;
        return sum;
    }
};

}  // namespace smlora
