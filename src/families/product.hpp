// The grouped products that a projection's operations are made of: forward, dX, XA and YB differ only in the members of
// Product, and each kernel family computes those of them that it can.
#pragma once

#include "jit/kernel_spec.hpp"

#include <smlora/problem.hpp>

#include <cstdint>
#include <vector>

namespace smlora::families {

struct Product {
    /// x or dy times the weight; or x or dy times one matrix of the adapter.
    enum class Kind : std::uint8_t { projection, rank_rows };

    Kind kind = Kind::projection;
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
    bool packed = false;     ///< multiplies the codes of the problem's weights, rather than what they are unpacked to
    std::int64_t slice = 0;  ///< experts of a launch, see GroupedProductArgs; 0: all of the problem's
};

/// y_i = x_i W_e + xa_i B_e^T + b_e.
[[nodiscard]] Product forward_product(const Problem& problem);

/// dx_i = g_f (dy_i W_e^T + yb_i A_e). The gate is left to a kernel that follows, if there is one: that of dgates, or
/// the sum over a token's rows.
[[nodiscard]] Product dx_product(const Problem& problem, bool before_gates);

/// xa_i = scaling x_i A_e^T, A packed or direct as [E, padded rank, K].
[[nodiscard]] Product xa_product(const Problem& problem);

/// yb_i = scaling dy_i B_e, B packed or direct as [E, N, padded rank].
[[nodiscard]] Product yb_product(const Problem& problem);

/// A product as a piece of work: what a family plans it from.
struct ProductWork {
    Problem problem;
    Product product;
    double tokens = 1;  ///< of a call, roughly; for cost models alone
    /// The next kernel begins during this one, and its blocks fill what this one leaves idle; for cost models alone.
    bool followed = false;
};

/// Experts of a launch.
[[nodiscard]] std::int64_t launched_experts(const ProductWork& work);

/// Columns of the rank rows, padding included; 0: no adapter.
[[nodiscard]] std::int64_t rank_columns(const ProductWork& work);

/// What the time of a product depends on.
struct ProductSize {
    std::int64_t E = 0, out = 0;
    double reduction = 0;               ///< of the weight
    double depth = 0;                   ///< the same and the adapter's
    double rows_per_expert = 0;         ///< the mean, M / E
    double bytes = 0;                   ///< read and written once
    bool reduction_contiguous = false;  ///< of the weight
};

[[nodiscard]] ProductSize product_size(const ProductWork& work);

/// Constants that the templates of the portable products have in common.
[[nodiscard]] std::vector<jit::Constant> product_constants(const ProductWork& work);

}  // namespace smlora::families
