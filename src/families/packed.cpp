#include "families/packed.hpp"

#include "families/row_step.hpp"
#include "families/type_names.hpp"
#include "scale_order.hpp"

#include <fmt/format.h>

namespace smlora::families {

bool can_multiply_codes(const Problem& problem) { return problem.weights.arranged && problem.dtype == DType::bf16; }

std::string decoded_format(const WeightFormat& format) {
    if (format.encoding == Encoding::mxfp4) return "smlora::weight::Mxfp4";
    return fmt::format("smlora::weight::Int4<{}>", scale_order(format).columns_of_scale());
}

double packed_bytes_of_value(const WeightFormat& format) {
    const weight::ScaleOrder order = scale_order(format);
    return 0.5 + static_cast<double>(order.bytes) / order.columns_of_scale();
}

bool takes_permuted_rows(const Product& product) { return product.packed && !product.weight_out_contiguous; }

Step permute_step(const Problem& problem, std::int64_t columns) {
    return row_step("permute_rows", {{"WIDTH", columns}, {"Element", type_name(problem.dtype)}});
}

}  // namespace smlora::families
