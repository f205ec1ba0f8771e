#include "families/projection_products.hpp"

namespace smlora::families {

ProductKernel forward_product(const Problem& problem) {
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    ProductKernel product;
    product.red = problem.K;
    product.out = problem.N;
    product.out_weight = problem.N;
    product.rank = problem.R;
    product.rows = problem.x_rows;
    product.out_rows = problem.y_rows == RowOrder::token ? RowOrder::scattered : problem.y_rows;
    product.weight_out_contiguous = ekn;
    product.weight_row_stride = ekn ? problem.N : problem.K;
    product.bias = problem.bias;
    return product;
}

ProductKernel dx_product(const Problem& problem, const plan::Variant& variant) {
    const bool reduced = problem.x_rows == RowOrder::token;
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    ProductKernel product;
    product.red = problem.N;
    product.out = problem.K;
    product.out_weight = problem.K;
    product.rank = problem.R;
    product.rows = problem.y_rows;
    product.out_rows = reduced ? RowOrder::scattered : problem.x_rows;
    product.weight_out_contiguous = !ekn;
    product.weight_row_stride = ekn ? problem.N : problem.K;
    product.lora_out_contiguous = true;
    // dgates needs the rows before their gate; the sum over a token's rows can apply it itself.
    product.gates = problem.gates && !variant.wants_dgates && !reduced;
    return product;
}

ProductKernel xa_product(const Problem& problem) {
    ProductKernel product;
    product.red = problem.K;
    product.out = padded_rank(problem);
    product.out_weight = problem.R;
    product.rows = problem.x_rows;
    product.out_rows = RowOrder::grouped;
    return product;
}

ProductKernel yb_product(const Problem& problem) {
    ProductKernel product;
    product.red = problem.N;
    product.out = padded_rank(problem);
    product.out_weight = problem.R;
    product.rows = problem.y_rows;
    product.out_rows = RowOrder::grouped;
    product.weight_out_contiguous = true;
    return product;
}

}  // namespace smlora::families
