// The grouped product as a step of a plan: forward, dX, XA and YB differ only in what is filled in here.
#pragma once

#include "plan/plan.hpp"

#include <cstdint>

namespace smlora::families {

/// The templates' name of an element or index type.
[[nodiscard]] const char* type_name(DType dtype);

/// The templates' type of gates. Kernels without gates take that of their elements, so that they are the same ones
/// whatever type the problem's gates have.
[[nodiscard]] const char* gate_type_name(const Problem& problem, bool gates);

/// The templates' format of weights in the problem's own type (weight/plain.cuh).
inline constexpr const char* plain_weight = "smlora::weight::Plain";

struct ProductKernel {
    std::int64_t red = 0;         ///< length of the reduction
    std::int64_t out = 0;         ///< columns written
    std::int64_t out_weight = 0;  ///< of those, columns that the weight has; the rest are written as zero
    std::int64_t rank = 0;        ///< columns of lora_rows that count; 0: no adapter
    RowOrder rows = RowOrder::token;
    RowOrder out_rows = RowOrder::scattered;
    bool weight_out_contiguous = false;
    std::int64_t weight_row_stride = 0;  ///< 0: known at run time only
    bool lora_out_contiguous = false;
    bool bias = false;
    bool gates = false;
};

/// On mma.sync with a configuration of the family grouped_product_mma, without tensor cores without one.
[[nodiscard]] plan::Step product_step(const Problem& problem, const ProductKernel& product,
                                      const std::optional<tune::Configuration>& configuration);

/// The plain kernel that others are checked against. Takes the arguments of the step above.
[[nodiscard]] plan::Step reference_product_step(const Problem& problem, const ProductKernel& product);

/// The gradients that the variant wants, in one launch on tensor cores. `configuration` is one of lora_gradient_mma
/// or lora_gradient_bulk.
[[nodiscard]] plan::Step gradients_step(const Problem& problem, const plan::Variant& variant,
                                        const tune::Configuration& configuration);

/// Adds up the partial sums of gradients_step.
[[nodiscard]] plan::Step gradients_reduce_step(const Problem& problem, const plan::Variant& variant);

/// The gradient of one adapter matrix without tensor cores. `width` is the wide operand's, `rows` its order.
[[nodiscard]] plan::Step gradient_step(const Problem& problem, std::int64_t width, RowOrder rows);

/// The plain kernel for the same, which others are checked against.
[[nodiscard]] plan::Step reference_gradient_step(const Problem& problem, std::int64_t width, RowOrder rows);

}  // namespace smlora::families
