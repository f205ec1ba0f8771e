// Launching a grouped product with its adapter.
#pragma once

#include "args/grouped_product.h"
#include "families/adapter.hpp"
#include "families/launcher.hpp"
#include "families/step.hpp"

#include <smlora/operations.hpp>

#include <cstdint>
#include <memory>

namespace smlora::families {

/// What a product that decodes a weight reads beside its codes.
struct PackedParts {
    const void* scales = nullptr;  ///< arranged
    const float* table = nullptr;  ///< nf4, fp4
};

/// How a family launches its product: holds what the launch depends on beside the arguments of the call. Made with the
/// step, so that a call works nothing out twice.
class ProductLaunch {
 public:
    ProductLaunch() = default;
    virtual ~ProductLaunch() = default;
    ProductLaunch(const ProductLaunch&) = delete;
    ProductLaunch& operator=(const ProductLaunch&) = delete;

    /// `adapter` is set if the product has one; its rank rows are in `args`, too. `parts`: of a packed weight. `begin`:
    /// the earliest moment.
    virtual void launch(const Launcher& launcher, const Step& step, const GroupedProductArgs& args,
                        const Adapter& adapter, const PackedParts& parts, gpu::Begin begin) const = 0;
};

/// An upper bound of the tiles of M rows of E experts: each of these, and the entries left out, may have a row tile
/// that is not full.
[[nodiscard]] std::int64_t most_tiles(const Step& step, std::int64_t M, std::int64_t E);

/// Of a kernel that walks row tiles and needs nothing but its arguments, for a problem of E experts.
[[nodiscard]] std::shared_ptr<const ProductLaunch> portable_launch(std::int64_t E);

/// Arguments that every product of a call has in common.
[[nodiscard]] GroupedProductArgs product_args(const Problem& problem, const Routing& routing, std::int64_t M);

/// Bytes of xa or yb for M rows.
[[nodiscard]] std::int64_t rank_rows_bytes(const Problem& problem, std::int64_t M);

/// out_i = scaling row(i) matrix_e into rows of the padded rank: XA or YB.
void launch_rank_product(const Launcher& launcher, const Step& step, const Problem& problem, GroupedProductArgs args,
                         const Tensor& rows, const AdapterMatrix& matrix, float scaling, void* out);

/// The steps of a product with its adapter.
struct ProductSteps {
    const Step* rank_rows = nullptr;  ///< null: the product makes them itself, or has no adapter
    const Step* product = nullptr;
};

/// Launches what makes the rank rows before the product, if anything does.
void launch_rank_rows(const Launcher& launcher, const ProductSteps& steps, const Problem& problem, const Tensor& rows,
                      const Adapter& adapter, const GroupedProductArgs& args);

/// Sets the rows that a product multiplies, and what it reads of its adapter, if it has one.
void set_operands(GroupedProductArgs& args, const Tensor& rows, const Adapter& adapter);

/// What a product and its rank rows multiply: the same values, which a product may take in an order of its own.
struct ProductRows {
    const Tensor& given;
    const Tensor& of_product;
};

/// The product of `rows`, with its adapter if the problem has one; `args` holds the rest but `parts`, of a packed
/// weight.
void launch_product(const Launcher& launcher, const ProductSteps& steps, const Problem& problem,
                    const ProductRows& rows, const Adapter& adapter, GroupedProductArgs args,
                    const PackedParts& parts = {});

}  // namespace smlora::families
