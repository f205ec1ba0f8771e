#include "families/pack.hpp"

#include "families/row_step.hpp"
#include "families/tensor_layout.hpp"
#include "families/type_names.hpp"

#include <limits>

namespace smlora::families {
namespace {

bool needs_packing(const Problem& problem, const Tensor& view, bool tensor_cores) {
    if (view.dtype != problem.dtype || view.strides[2] != 1) return true;
    return tensor_cores &&
           (problem.R % 8 != 0 || view.strides[0] % 8 != 0 || view.strides[1] % 8 != 0 || !aligned16(view.data));
}

/// Extents of a matrix of the adapter, without the experts.
struct Extents {
    std::int64_t outer, inner;
};

Extents packed_a(const Problem& problem) { return {padded_rank(problem), problem.K}; }
Extents packed_b(const Problem& problem) { return {problem.N, padded_rank(problem)}; }

/// Of the dimensions along which memory is walked at all.
Fastest fastest_dimension(const Tensor& view) {
    const auto step = [&](std::size_t d) {
        const bool walked = view.shape[d] > 1 && view.strides[d] > 0;
        return walked ? view.strides[d] : std::numeric_limits<std::int64_t>::max();
    };
    if (step(2) <= step(1) && step(2) <= step(0)) return Fastest::inner;
    return step(1) <= step(0) ? Fastest::outer : Fastest::expert;
}

std::int64_t elements_of_16_bytes(DType dtype) { return 16 / static_cast<std::int64_t>(size_of(dtype)); }

PackWork work_of(const Problem& problem, const Tensor& view, const Extents& packed) {
    const Fastest fastest = fastest_dimension(view);
    const bool vectors = fastest == Fastest::inner ? view.strides[2] == 1 && rows_aligned({&view})
                                                   : packed.inner % elements_of_16_bytes(problem.dtype) == 0;
    return {fastest, vectors};
}

std::optional<PackWork> packing_of_one(const Problem& problem, const Tensor& view, const Extents& packed,
                                       bool tensor_cores) {
    if (!view.given() || !needs_packing(problem, view, tensor_cores)) return std::nullopt;
    return work_of(problem, view, packed);
}

pack_adapter::Tiling tiling_of(const Problem& problem, const Extents& packed, const PackWork& work) {
    const DType wide = work.fastest == Fastest::inner ? problem.adapter_dtype : problem.dtype;
    return pack_adapter::tiling(work.fastest, static_cast<int>(problem.E), static_cast<int>(packed.outer),
                                static_cast<int>(packed.inner),
                                work.vectors ? static_cast<int>(elements_of_16_bytes(wide)) : 1);
}

Step pack_step(const Problem& problem, const Extents& given, const Extents& packed, const PackWork& work,
               const gpu::DeviceFacts& facts) {
    Step step = row_step("pack_adapter", {{"E", problem.E},
                                          {"OUTER", given.outer},
                                          {"INNER", given.inner},
                                          {"OUTER_PAD", packed.outer},
                                          {"INNER_PAD", packed.inner},
                                          {"THREADS", row_threads},
                                          {"FASTEST", static_cast<int>(work.fastest)},
                                          {"VECTOR", work.vectors},
                                          {"Source", type_name(problem.adapter_dtype)},
                                          {"Element", type_name(problem.dtype)}});
    // As many threads as a multiprocessor holds keep most adapters under way at once. Elsewhere fewer fit, and kernels
    // that turn tiles would spill.
    if (facts.arch.number() == 90 && work.fastest == Fastest::inner) step.spec.min_blocks = 8;
    step.tile_rows = 1;
    step.column_tiles = tiling_of(problem, packed, work).count();
    return step;
}

std::int64_t bytes_of(const Problem& problem, const Extents& packed) {
    return problem.E * packed.outer * packed.inner * static_cast<std::int64_t>(size_of(problem.dtype));
}

AdapterMatrix matrix_of(const Launcher& launcher, const Step* pack, const Tensor& view, const Extents& packed,
                        void* memory) {
    if (pack == nullptr) return {view.data, view.strides[0], view.strides[1]};
    PackAdapterArgs args{};
    args.source = view.data;
    args.expert_stride = view.strides[0];
    args.outer_stride = view.strides[1];
    args.inner_stride = view.strides[2];
    args.packed = memory;
    launcher.launch(*pack, pack->column_tiles, args);
    return {memory, packed.outer * packed.inner, packed.inner};
}

}  // namespace

Packing packing_of(const Problem& problem, const Tensor& A, const Tensor& B, bool tensor_cores) {
    return {packing_of_one(problem, A, packed_a(problem), tensor_cores),
            packing_of_one(problem, B, packed_b(problem), tensor_cores)};
}

PackWork aligned_pack_a(const Problem& problem) {
    return work_of(problem, Tensor(nullptr, problem.adapter_dtype, {problem.E, problem.R, problem.K}),
                   packed_a(problem));
}

PackWork aligned_pack_b(const Problem& problem) {
    return work_of(problem, Tensor(nullptr, problem.adapter_dtype, {problem.E, problem.N, problem.R}),
                   packed_b(problem));
}

Step pack_a_step(const Problem& problem, const PackWork& work, const gpu::DeviceFacts& facts) {
    return pack_step(problem, {problem.R, problem.K}, packed_a(problem), work, facts);
}

Step pack_b_step(const Problem& problem, const PackWork& work, const gpu::DeviceFacts& facts) {
    return pack_step(problem, {problem.N, problem.R}, packed_b(problem), work, facts);
}

std::int64_t packed_a_bytes(const Problem& problem) { return bytes_of(problem, packed_a(problem)); }
std::int64_t packed_b_bytes(const Problem& problem) { return bytes_of(problem, packed_b(problem)); }

AdapterMatrix adapter_a(const Launcher& launcher, const Step* pack, const Problem& problem, const Tensor& A,
                        void* memory) {
    return matrix_of(launcher, pack, A, packed_a(problem), memory);
}

AdapterMatrix adapter_b(const Launcher& launcher, const Step* pack, const Problem& problem, const Tensor& B,
                        void* memory) {
    return matrix_of(launcher, pack, B, packed_b(problem), memory);
}

}  // namespace smlora::families
