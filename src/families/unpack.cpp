#include "families/unpack.hpp"

#include "families/row_step.hpp"
#include "families/tensor_layout.hpp"
#include "families/type_names.hpp"

#include <cstdint>

namespace smlora::families {
namespace {

static_assert(static_cast<int>(Encoding::nf4) == unpack_weights::nf4);
static_assert(static_cast<int>(Encoding::fp4) == unpack_weights::fp4);
static_assert(static_cast<int>(Encoding::int8) == unpack_weights::int8);
static_assert(static_cast<int>(Encoding::mxfp4) == unpack_weights::mxfp4);
static_assert(static_cast<int>(Encoding::fp8) == unpack_weights::fp8);
static_assert(static_cast<int>(Encoding::mxfp8) == unpack_weights::mxfp8);
static_assert(static_cast<int>(Encoding::nvfp4) == unpack_weights::nvfp4);
static_assert(static_cast<int>(Encoding::int4) == unpack_weights::int4);

bool is_multiple(const void* pointer, std::int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(bytes) == 0;
}

}  // namespace

UnpackWork unpack_work(const Weight& weight, const void* out, DType dtype) {
    const auto elements = 16 / static_cast<std::int64_t>(size_of(dtype));
    const std::int64_t unit_bytes =
        unpack_weights::is_nibbles(static_cast<int>(weight.encoding)) ? elements / 2 : elements;
    const bool one_scale = weight.encoding == Encoding::int8 || weight.block % elements == 0;
    return {.encoding = weight.encoding,
            .scales = weight.scales.dtype,
            .rows = weight.rows,
            .columns = weight.columns,
            .block = weight.block,
            .parts = weight.parts,
            .outer_block = weight.double_quantization.given() ? weight.double_quantization.block : 0,
            .global_scale = weight.global_scale,
            .vectors = weight.columns % elements == 0 && one_scale && aligned16(out) &&
                       is_multiple(weight.codes.data, unit_bytes)};
}

Step unpack_step(const Problem& problem, const UnpackWork& work) {
    Step step = row_step("unpack_weights", {{"ENCODING", static_cast<int>(work.encoding)},
                                            {"ROWS", work.rows},
                                            {"COLUMNS", work.columns},
                                            {"BLOCK", work.block},
                                            {"PARTS", work.parts},
                                            {"VECTOR", work.vectors},
                                            {"DOUBLE", work.outer_block != 0},
                                            {"OUTER_BLOCK", work.outer_block},
                                            {"GLOBAL_DIVIDES", work.global_scale == GlobalScale::divisor},
                                            {"Element", type_name(problem.dtype)},
                                            {"Scale", type_name(work.scales)},
                                            {"Index", type_name(problem.index_dtype)}});
    const auto elements = work.vectors ? 16 / static_cast<std::int64_t>(size_of(problem.dtype)) : 1;
    step.column_tiles = unpack_weights::segments(static_cast<int>(work.columns / elements)).count;
    return step;
}

UnpackWeightsArgs unpack_args(const Weight& weight, void* out) {
    const DoubleQuantization& outer = weight.double_quantization;
    UnpackWeightsArgs args{};
    args.codes = weight.codes.data;
    args.scales = weight.scales.data;
    args.table = static_cast<const float*>(weight.table.data);
    args.outer_scales = static_cast<const float*>(outer.given() ? outer.scales.data : weight.global_scales.data);
    args.outer_table = static_cast<const float*>(outer.table.data);
    args.outer_offset = static_cast<const float*>(outer.offset.data);
    args.outer_expert_stride = weight.global_scales.strides[0];
    args.outer_part_stride = weight.global_scales.strides[1];
    args.out = out;
    args.experts = static_cast<int>(weight.E);
    return args;
}

}  // namespace smlora::families
