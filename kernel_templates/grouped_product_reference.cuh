// Plain reference of the grouped product: a thread takes one output element at a time, sums in fp32 in the order of the
// reduction, and rounds once. 256 threads, any grid.
//
// Compile-time (struct C): E, RED, OUT, RANK (0: no adapter; also the row stride of lora_rows), ROWS, OUT_ROWS, TOP_K,
// WEIGHT_MAJOR (0: RED contiguous, 1: OUT contiguous), LORA_MAJOR (0: RANK contiguous, 1: OUT contiguous), HAS_BIAS,
// HAS_GATES; types Element, Weight (weight/plain.cuh), Gate, Index.
#pragma once

#include "args/grouped_product.h"
#include "epilogue.cuh"
#include "expert_of.cuh"
#include "groups.cuh"
#include "rows.cuh"
#include "types.cuh"
#include "weight/simt.cuh"

namespace smlora::grouped_product_reference {

using Args = GroupedProductArgs;

/// <row, column `out` of the weights>, of a row of LeftRows that flat entry `flat` uses.
template <int LENGTH, class LeftRows, class Element, class Weights>
__device__ __forceinline__ float product(const Element* row, int flat, const Weights& weights, int64 out) {
    float sum = 0.0F;
    for (int64 i = 0; i < LENGTH; ++i) {
        const float weight = weights.at(i, out);
        sum = fmaf(LeftRows::value(row[i], flat, i), weight, sum);
    }
    return sum;
}

template <class C>
__device__ __forceinline__ void run(const Args& args) {
    using Element = typename C::Element;
    using Left = Rows<const Element, C::ROWS, C::TOP_K>;
    using Out = Rows<Element, C::OUT_ROWS, C::TOP_K>;
    const auto* const scattered_idxs = static_cast<const typename C::Index*>(args.scattered_idxs);
    const auto* const expert_offsets = static_cast<const typename C::Index*>(args.expert_offsets);
    const int kept = kept_rows<C::E>(expert_offsets);
    const int64 elements = static_cast<int64>(args.M) * C::OUT;
    for (int64 item = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x; item < elements;
         item += static_cast<int64>(gridDim.x) * blockDim.x) {
        const int position = static_cast<int>(item / C::OUT);
        const int out = static_cast<int>(item % C::OUT);
        const int flat = static_cast<int>(scattered_idxs[position]);
        float value = 0.0F;
        if (position < kept) {
            const Left rows{static_cast<const Element*>(args.rows), args.rows_stride};
            const int group = expert_of<C::E>(expert_offsets, position);
            const int weight = Groups<C, true>::weight_of(group);
            const weight::Simt<typename C::Weight, Element, C::WEIGHT_MAJOR> weights{
                static_cast<const Element*>(args.weight) + weight * args.weight_expert_stride, args.weight_row_stride};
            value = args.scale *
                    product<C::RED, Left>(rows.address(Left::index(position, flat)), flat, weights, int64{out});
            if constexpr (C::RANK > 0) {
                using LoraRows = Rows<const Element, rows_grouped, C::TOP_K>;
                const LoraRows lora_rows{static_cast<const Element*>(args.lora_rows), C::RANK};
                const weight::Simt<weight::Plain, Element, C::LORA_MAJOR> adapter{
                    static_cast<const Element*>(args.lora_weight) +
                        Groups<C, true>::adapter_of(group) * args.lora_expert_stride,
                    args.lora_row_stride};
                value += product<C::RANK, LoraRows>(lora_rows.address(position), flat, adapter, int64{out});
            }
            using Finish = Epilogue<C, false>;
            const Finish finish{args};
            typename Finish::Column of_column[1];
            finish.read_columns(of_column, weight, out);
            auto of_row = finish.row();
            finish.read_row(of_row, flat);
            value = Finish::apply(value, of_row, of_column[0]);
        }
        const Out out_rows{static_cast<Element*>(args.out), args.out_stride};
        out_rows.address(Out::index(position, flat))[out] = from_float<Element>(value);
    }
}

}  // namespace smlora::grouped_product_reference
