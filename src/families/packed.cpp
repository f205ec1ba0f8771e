#include "families/packed.hpp"

#include "families/row_step.hpp"
#include "families/type_names.hpp"

namespace smlora::families {

bool can_multiply_codes(const Problem& problem) {
    return problem.weights.encoding == Encoding::mxfp4 && problem.weights.arranged && problem.dtype == DType::bf16;
}

bool takes_permuted_rows(const Product& product) { return product.packed && !product.weight_out_contiguous; }

Step permute_step(const Problem& problem, std::int64_t columns) {
    return row_step("permute_rows", {{"WIDTH", columns}, {"Element", type_name(problem.dtype)}});
}

}  // namespace smlora::families
