#include "families/pack.hpp"

#include "args/pack_adapter.h"
#include "families/row_step.hpp"
#include "families/tensor_layout.hpp"
#include "families/type_names.hpp"

namespace smlora::families {
namespace {

bool needs_packing(const Problem& problem, const Tensor& view, bool tensor_cores) {
    if (view.dtype != problem.dtype || view.strides[2] != 1) return true;
    return tensor_cores &&
           (problem.R % 8 != 0 || view.strides[0] % 8 != 0 || view.strides[1] % 8 != 0 || !aligned16(view.data));
}

Fastest fastest_dimension(const Tensor& view) {
    if (view.strides[2] <= view.strides[1] && view.strides[2] <= view.strides[0]) return Fastest::inner;
    return view.strides[1] <= view.strides[0] ? Fastest::outer : Fastest::expert;
}

std::optional<Fastest> packing_of_one(const Problem& problem, const Tensor& view, bool tensor_cores) {
    if (!view.given() || !needs_packing(problem, view, tensor_cores)) return std::nullopt;
    return fastest_dimension(view);
}

/// Extents of a matrix of the adapter, without the experts.
struct Extents {
    std::int64_t outer, inner;
};

Step pack_step(const Problem& problem, const Extents& given, const Extents& packed, Fastest fastest) {
    Step step = row_step("pack_adapter", {{"E", problem.E},
                                          {"OUTER", given.outer},
                                          {"INNER", given.inner},
                                          {"OUTER_PAD", packed.outer},
                                          {"INNER_PAD", packed.inner},
                                          {"THREADS", row_threads},
                                          {"FASTEST", static_cast<int>(fastest)},
                                          {"Source", type_name(problem.adapter_dtype)},
                                          {"Element", type_name(problem.dtype)}});
    step.tile_rows = pack_adapter::tile_elements;
    return step;
}

Extents packed_a(const Problem& problem) { return {padded_rank(problem), problem.K}; }
Extents packed_b(const Problem& problem) { return {problem.N, padded_rank(problem)}; }

std::int64_t elements_of(const Problem& problem, const Extents& packed) {
    return problem.E * packed.outer * packed.inner;
}

std::int64_t bytes_of(const Problem& problem, const Extents& packed) {
    return elements_of(problem, packed) * static_cast<std::int64_t>(size_of(problem.dtype));
}

AdapterMatrix matrix_of(const Launcher& launcher, const Step* pack, const Problem& problem, const Tensor& view,
                        const Extents& packed, void* memory) {
    if (pack == nullptr) return {view.data, view.strides[0], view.strides[1]};
    PackAdapterArgs args{};
    args.source = view.data;
    args.expert_stride = view.strides[0];
    args.outer_stride = view.strides[1];
    args.inner_stride = view.strides[2];
    args.packed = memory;
    launcher.launch(*pack, (elements_of(problem, packed) + pack->tile_rows - 1) / pack->tile_rows, args);
    return {memory, packed.outer * packed.inner, packed.inner};
}

}  // namespace

Packing packing_of(const Problem& problem, const Tensor& A, const Tensor& B, bool tensor_cores) {
    return {packing_of_one(problem, A, tensor_cores), packing_of_one(problem, B, tensor_cores)};
}

Step pack_a_step(const Problem& problem, Fastest fastest) {
    return pack_step(problem, {problem.R, problem.K}, packed_a(problem), fastest);
}

Step pack_b_step(const Problem& problem, Fastest fastest) {
    return pack_step(problem, {problem.N, problem.R}, packed_b(problem), fastest);
}

std::int64_t packed_a_bytes(const Problem& problem) { return bytes_of(problem, packed_a(problem)); }
std::int64_t packed_b_bytes(const Problem& problem) { return bytes_of(problem, packed_b(problem)); }

AdapterMatrix adapter_a(const Launcher& launcher, const Step* pack, const Problem& problem, const Tensor& A,
                        void* memory) {
    return matrix_of(launcher, pack, problem, A, packed_a(problem), memory);
}

AdapterMatrix adapter_b(const Launcher& launcher, const Step* pack, const Problem& problem, const Tensor& B,
                        void* memory) {
    return matrix_of(launcher, pack, problem, B, packed_b(problem), memory);
}

}  // namespace smlora::families
