// What forward and backward_input have in common: the product of rows and weights with its adapter, and the sum over a
// token's rows.
#pragma once

#include "args/grouped_product.h"
#include "engine/cuda_call.hpp"
#include "families/pack.hpp"
#include "families/packed.hpp"
#include "families/product_launch.hpp"
#include "families/tensor_layout.hpp"
#include "ops/projection_scratch.hpp"
#include "plan/plan.hpp"
#include "tuning/bucket.hpp"

#include <smlora/operations.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace smlora::ops {

/// forward: rows x become y by W, with A and then B. backward_input: rows dy become dx, with B and then A.
enum class Direction : std::uint8_t { forward, backward };

/// The tensors of a call, by what the product makes of them.
struct Projection {
    Direction direction = Direction::forward;
    std::int64_t T = 0;
    const Tensor& rows;
    const Tensor& out;
    const Tensor& rank_rows;  ///< where XA or YB is wanted
    const Routing& routing;
    const Weight& W;
    const Tensor& A;
    const Tensor& B;
    const Tensor& bias;   ///< read by products that add it
    const Tensor& gates;  ///< read by the sum over a token's rows, or by products that apply it
    float scaling = 1.0F;
    const Workspace& workspace;
};

// Of arguments that outlive it.
[[nodiscard]] Projection projection_of(const ForwardArgs& args, std::int64_t T);
[[nodiscard]] Projection projection_of(const BackwardInputArgs& args, std::int64_t T);

/// The matrices that the product reads: W itself, or what a quantised W is unpacked to, in memory that is aligned.
[[nodiscard]] Tensor plain_weights(const Problem& problem, const Weight& W);

/// What the requests of forward and backward_input have in common. `unpack_limit`: see EngineOptions.
template <class Request>
[[nodiscard]] Request request_of(const Problem& problem, const Projection& projection, std::uint64_t unpack_limit) {
    Request request;
    request.bucket = tuning::bucket_of(projection.T);
    const Tensor W = plain_weights(problem, projection.W);
    request.tensor_cores =
        families::tensor_cores_fit(problem, {&projection.rows, &W, &projection.out}, {&projection.rank_rows});
    if (projection.W.encoding != Encoding::plain) {
        request.unpack =
            plan::unpack_request(problem, families::unpack_work(projection.W, nullptr, problem.dtype), unpack_limit);
        request.packed = request.tensor_cores && families::can_multiply_codes(problem) &&
                         families::aligned16(projection.W.codes.data) && families::aligned16(projection.W.scales.data);
    }
    request.vector_rows = families::rows_aligned({&projection.out});
    if (problem.R > 0) {
        request.packing = families::packing_of(problem, projection.A, projection.B, request.tensor_cores);
    }
    return request;
}

/// Bytes of the workspace that any such call for T tokens needs at most.
[[nodiscard]] std::size_t projection_workspace(const Engine& engine, const Problem& problem, std::int64_t T,
                                               Direction direction);

/// One such call with its plan. Scratch memory lives as long as it does, and so must what it is made of.
class ProjectionCall {
 public:
    ProjectionCall(const engine::CudaCall& call, const plan::Plan& plan, const Problem& problem,
                   const Projection& projection, const families::Packing& packing,
                   const std::optional<plan::Unpack>& unpack);

    /// Launches the product. Returns its arguments, among them where its rows are.
    GroupedProductArgs launch_product() const;

    /// Launches the sum over a token's rows, if the plan has one.
    void launch_sum() const;

 private:
    [[nodiscard]] families::Adapter adapter() const;

    const families::Launcher& launcher_;
    const plan::Plan& plan_;
    const Problem& problem_;
    const Projection& projection_;
    const std::optional<plan::Unpack>& unpack_;
    ProjectionScratch scratch_;
};

}  // namespace smlora::ops
