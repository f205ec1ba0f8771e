// What of the layout of grouped_product_wgmma is another one for packed weights.
#pragma once

#include "grouped_product_wgmma/layout.cuh"
#include "weight/wgmma_packed.cuh"

namespace smlora::grouped_product_packed {

/// A weight whose stage has as many bytes as that of Weight, for what is the same with any weight.
template <class Weight>
struct AsLargeAs {
    static constexpr int stage_bytes(int columns, int depth) {
        return weight::packed_stage_bytes(Weight::code_bits, Weight::order, columns, depth);
    }
};

/// C with such a weight.
template <class C>
struct OfAnyWeight : C {
    using Weight = AsLargeAs<typename C::Weight>;
};

template <class C>
concept Packed = weight::Decoded<typename C::Weight>;

}  // namespace smlora::grouped_product_packed

namespace smlora::grouped_product_wgmma {

template <class C>
requires grouped_product_packed::Packed<C>
struct Layout<C> : Layout<grouped_product_packed::OfAnyWeight<C>> {
    using Common = Layout<grouped_product_packed::OfAnyWeight<C>>;
    static_assert(!Common::has_lora || Common::memory.lora_beside, "a stage has no room for an adapter");

    using BaseWeight = weight::Wgmma<typename C::Weight, typename C::Element, C::WEIGHT_MAJOR, step_depth>;

    /// Fragments and what they are made of are more registers of the threads that multiply.
    static constexpr bool many_rows = C::TILE_ROWS > 96;
    static constexpr int copying_registers = many_rows ? 40 : Common::copying_registers;
    static constexpr int storing_registers = many_rows ? 40 : Common::storing_registers;
    static constexpr int multiplying_registers = many_rows ? 216 : Common::multiplying_registers;
};

}  // namespace smlora::grouped_product_wgmma
