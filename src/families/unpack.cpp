#include "families/unpack.hpp"

#include "families/row_step.hpp"
#include "families/tensor_layout.hpp"
#include "families/type_names.hpp"

#include <algorithm>
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

bool is_nibbles(Encoding encoding) { return unpack_weights::is_nibbles(static_cast<int>(encoding)); }

/// Whether rows are whole units of 16 bytes of this type, each with one scale.
bool fits_vectors(const UnpackWork& work, DType dtype) {
    const auto elements = 16 / static_cast<std::int64_t>(size_of(dtype));
    const bool one_scale = work.format.encoding == Encoding::int8 || work.format.block % elements == 0;
    return work.columns % elements == 0 && one_scale;
}

/// 1 where parts that were quantised apart are decoded as if they were not, so that one kernel serves both.
std::int64_t parts_that_differ(const UnpackWork& work) {
    const WeightFormat& format = work.format;
    const bool ragged = format.encoding == Encoding::fp8 && work.rows / format.parts % format.block != 0;
    return ragged || format.encoding == Encoding::nvfp4 ? format.parts : 1;
}

bool is_multiple(const void* pointer, std::int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(bytes) == 0;
}

}  // namespace

UnpackWork unpack_work(const Weight& weight, const void* out, DType dtype) {
    UnpackWork work{.format = format_of(weight), .rows = weight.rows, .columns = weight.columns};
    const auto elements = 16 / static_cast<std::int64_t>(size_of(dtype));
    work.vectors = fits_vectors(work, dtype) && aligned16(out) &&
                   is_multiple(weight.codes.data, is_nibbles(weight.encoding) ? elements / 2 : elements);
    return work;
}

UnpackWork aligned_unpack_work(const Problem& problem) {
    const bool enk = problem.weight_layout == WeightLayout::enk;
    UnpackWork work{
        .format = problem.weights, .rows = enk ? problem.N : problem.K, .columns = enk ? problem.K : problem.N};
    work.vectors = fits_vectors(work, problem.dtype);
    return work;
}

std::int64_t unpacked_bytes(const Problem& problem, std::int64_t experts) {
    return experts * problem.K * problem.N * static_cast<std::int64_t>(size_of(problem.dtype));
}

std::int64_t slice_experts(const Problem& problem, std::uint64_t limit) {
    const std::uint64_t fit = limit / static_cast<std::uint64_t>(unpacked_bytes(problem, 1));
    const std::int64_t most = std::clamp<std::int64_t>(static_cast<std::int64_t>(fit), 1, problem.E);
    const std::int64_t slices = (problem.E + most - 1) / most;
    return (problem.E + slices - 1) / slices;
}

Step unpack_step(const Problem& problem, const UnpackWork& work, const gpu::DeviceFacts& facts) {
    const WeightFormat& format = work.format;
    Step step = row_step("unpack_weights", {{"ENCODING", static_cast<int>(format.encoding)},
                                            {"ROWS", work.rows},
                                            {"COLUMNS", work.columns},
                                            {"BLOCK", format.block},
                                            {"PARTS", parts_that_differ(work)},
                                            {"VECTOR", work.vectors},
                                            {"DOUBLE", format.outer_block != 0},
                                            {"OUTER_BLOCK", format.outer_block},
                                            {"GLOBAL_DIVIDES", format.global_scale == GlobalScale::divisor},
                                            {"ARRANGED", format.arranged},
                                            {"Element", type_name(problem.dtype)},
                                            {"Scale", type_name(format.scales)},
                                            {"Index", type_name(problem.index_dtype)}});
    // As many threads as a multiprocessor holds keep more bytes under way than more registers for each would. Elsewhere
    // some kernels would spill, or fewer threads fit.
    if (facts.arch.number() == 90) step.spec.min_blocks = 8;
    const auto elements = work.vectors ? 16 / static_cast<std::int64_t>(size_of(problem.dtype)) : 1;
    step.column_tiles =
        static_cast<int>(unpack_weights::segments(work.rows, static_cast<int>(work.columns / elements)));
    return step;
}

ArrangeWork arrange_work(const Weight& weight) {
    return {.format = format_of(weight),
            .rows = weight.rows,
            .columns = weight.columns,
            .words = is_multiple(weight.codes.data, 4) && weight.columns % 4 == 0};
}

ArrangeWork aligned_arrange_work(const Problem& problem) {
    const UnpackWork work = aligned_unpack_work(problem);
    WeightFormat given = work.format;
    given.arranged = false;
    if (given.encoding == Encoding::nvfp4) given.scales = DType::e4m3;
    return {.format = given, .rows = work.rows, .columns = work.columns, .words = work.columns % 4 == 0};
}

Step arrange_scales_step(const ArrangeWork& work) {
    const WeightFormat& format = work.format;
    return row_step("arrange_scales", {{"ENCODING", static_cast<int>(format.encoding)},
                                       {"BLOCK", format.block},
                                       {"ROWS", work.rows},
                                       {"COLUMNS", work.columns},
                                       {"PARTS", format.parts},
                                       {"DOUBLE", format.outer_block != 0},
                                       {"OUTER_BLOCK", format.outer_block},
                                       {"GLOBAL_DIVIDES", format.global_scale == GlobalScale::divisor},
                                       {"ARRANGED", 0},
                                       {"CODE_BYTES", work.words ? 4 : 1},
                                       {"Scale", type_name(format.scales)},
                                       {"Arranged", type_name(arranged_format(format).scales)}});
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
    args.experts = args.slice_experts = args.all_experts = static_cast<int>(weight.E);
    return args;
}

void launch_unpack(const Launcher& launcher, const Step& step, const UnpackWeightsArgs& args) {
    // Several blocks for each that is resident, one after the other: the loads of a new one begin while the stores of
    // others drain. More would take longer where few experts have rows.
    constexpr std::int64_t turns = 16;
    const std::int64_t items = (args.experts * std::int64_t{step.column_tiles} + step.tile_rows - 1) / step.tile_rows;
    launcher.launch_grid(step, std::clamp<std::int64_t>(items, 1, turns * launcher.resident(step)), 1, args);
}

}  // namespace smlora::families
