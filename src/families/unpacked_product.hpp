// Products of quantised weights that are unpacked before: a slice of the experts after the other.
#pragma once

#include "families/product_launch.hpp"
#include "families/unpack.hpp"

#include <smlora/weight.hpp>

#include <cstdint>

namespace smlora::families {

struct UnpackedProduct {
    const Step& unpack;
    ProductSteps steps;
    std::int64_t slice = 0;      ///< experts at once; 0: all
    void* weights = nullptr;     ///< unpacked_bytes of so many
    void* slice_rows = nullptr;  ///< slice_rows_bytes of so many
};

/// Bytes of the table of where the rows of a slice of so many experts begin.
[[nodiscard]] std::int64_t slice_rows_bytes(const Problem& problem, std::int64_t experts);

/// Unpacks the experts of a slice, multiplies their rows, and goes on with the next one. `all`: the arguments of the
/// product as if it were one.
void launch_unpacked_product(const Launcher& launcher, const Problem& problem, const UnpackedProduct& product,
                             const Weight& weight, const Tensor& rows, const Adapter& adapter, GroupedProductArgs all);

}  // namespace smlora::families
