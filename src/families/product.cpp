#include "families/product.hpp"

#include "families/packed.hpp"
#include "families/type_names.hpp"

#include <fmt/format.h>

#include <cmath>

namespace smlora::families {

Product forward_product(const Problem& problem) {
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    Product product;
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

Product dx_product(const Problem& problem, bool before_gates) {
    const bool summed = problem.x_rows == RowOrder::token;
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    Product product;
    product.red = problem.N;
    product.out = problem.K;
    product.out_weight = problem.K;
    product.rank = problem.R;
    product.rows = problem.y_rows;
    product.out_rows = summed ? RowOrder::scattered : problem.x_rows;
    product.weight_out_contiguous = !ekn;
    product.weight_row_stride = ekn ? problem.N : problem.K;
    product.lora_out_contiguous = true;
    product.gates = problem.gates && !before_gates && !summed;
    return product;
}

Product xa_product(const Problem& problem) {
    Product product;
    product.kind = Product::Kind::rank_rows;
    product.red = problem.K;
    product.out = padded_rank(problem);
    product.out_weight = problem.R;
    product.rows = problem.x_rows;
    product.out_rows = RowOrder::grouped;
    return product;
}

Product yb_product(const Problem& problem) {
    Product product;
    product.kind = Product::Kind::rank_rows;
    product.red = problem.N;
    product.out = padded_rank(problem);
    product.out_weight = problem.R;
    product.rows = problem.y_rows;
    product.out_rows = RowOrder::grouped;
    product.weight_out_contiguous = true;
    return product;
}

std::int64_t launched_experts(const ProductWork& work) {
    return work.product.slice > 0 ? work.product.slice : work.problem.E;
}

std::int64_t rank_columns(const ProductWork& work) { return work.product.rank > 0 ? padded_rank(work.problem) : 0; }

ProductSize product_size(const ProductWork& work) {
    const Product& product = work.product;
    const double rows = work.tokens * static_cast<double>(work.problem.top_k);
    const auto rows_in = [&](RowOrder order) { return order == RowOrder::token ? work.tokens : rows; };
    const auto E = static_cast<double>(work.problem.E);
    const auto red = static_cast<double>(product.red);
    const auto out = static_cast<double>(product.out);
    const auto rank = static_cast<double>(rank_columns(work));
    const double busy = E * (1 - std::exp(-rows / E));  // experts with rows, whose weights are read
    ProductSize size;
    size.E = work.problem.E;
    size.out = product.out;
    size.reduction = red;
    size.depth = red + rank;
    size.rows_per_expert = rows / E;
    const double weight_bytes = product.packed ? packed_bytes_of_value(work.problem.weights) : 2;
    size.bytes = weight_bytes * busy * red * out +
                 2 * (busy * rank * out + rows_in(product.rows) * red + rows_in(product.out_rows) * out + rows * rank);
    size.reduction_contiguous = !product.weight_out_contiguous;
    return size;
}

std::vector<jit::Constant> product_constants(const ProductWork& work) {
    const Problem& problem = work.problem;
    const Product& product = work.product;
    return {
        {"E", launched_experts(work)},
        {"RED", product.red},
        {"OUT", product.out},
        {"TOP_K", problem.top_k},
        {"ROWS", static_cast<int>(product.rows)},
        {"OUT_ROWS", static_cast<int>(product.out_rows)},
        {"WEIGHT_MAJOR", product.weight_out_contiguous},
        {"LORA_MAJOR", product.lora_out_contiguous},
        {"HAS_BIAS", product.bias},
        {"HAS_GATES", product.gates},
        {"SLICE", product.slice > 0},
        {"Element", type_name(problem.dtype)},
        {"Weight",
         product.packed ? fmt::format("smlora::weight::Packed<{}>", decoded_format(problem.weights)) : plain_weight},
        {"Gate", gate_type_name(problem, product.gates)},
        {"Index", type_name(problem.index_dtype)},
    };
}

}  // namespace smlora::families
