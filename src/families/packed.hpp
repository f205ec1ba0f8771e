// What the rest of the library knows of products that decode packed weights where they multiply them.
#pragma once

#include "args/packed_weight.h"
#include "families/launcher.hpp"
#include "families/product.hpp"
#include "families/step.hpp"

#include <smlora/problem.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <string>

namespace smlora::families {

/// Whether there are such products for weights of this format and extent and rows of this type, on some GPU.
[[nodiscard]] bool can_multiply_codes(const Problem& problem);

[[nodiscard]] int code_bits(const WeightFormat& format);

/// What decodes codes of an arranged format: the constant Weight of grouped_product_packed.cuh.
[[nodiscard]] std::string decoded_format(const WeightFormat& format);

/// Bytes that a value of such weights has, its scale included.
[[nodiscard]] double packed_bytes_of_value(const WeightFormat& format);

/// How the arranged scales of the product's weights lie, which begin at `data`.
[[nodiscard]] PackedScales arranged_scales(const ProductWork& work, const void* data);

/// Permutes rows of so many columns, a multiple of 32, into the order in which some of these products take them:
/// takes_permuted_rows.
[[nodiscard]] Step permute_step(const Problem& problem, std::int64_t columns);

/// The rows that a product takes: those permuted into `memory` by `step`, or as they are without one.
[[nodiscard]] Tensor permuted_rows(const Launcher& launcher, const Step* step, const Tensor& rows, void* memory);

}  // namespace smlora::families
