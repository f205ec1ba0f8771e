#include "plan/plan.hpp"

#include "families/family.hpp"
#include "families/gradient_simt.hpp"
#include "families/packed.hpp"
#include "families/route.hpp"
#include "plan/packed.hpp"
#include "plan/search_space.hpp"
#include "plan/work.hpp"

namespace smlora::plan {
namespace {

using families::RowShape;

/// Makes the plan of a request: one function for each kind of request.
class Planner {
 public:
    Planner(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts, const Choices& choices)
        : problem_(problem),
          request_(with_the_faster_product(problem, request, facts, choices)),
          facts_(facts),
          choices_(choices) {}

    [[nodiscard]] Plan make() {
        std::visit([this](const auto& request) { add(request); }, request_);
        return std::move(plan_);
    }

 private:
    void add(const Route& request) {
        if (auto small = families::route_small_step(problem_, request.input_index, facts_)) {
            plan_.set(Role::route_small, std::move(*small));
        }
        plan_.set(Role::route_count, families::route_count_step(problem_, request.input_index));
        plan_.set(Role::route_scan, families::route_scan_step(problem_));
        plan_.set(Role::route_scatter, families::route_scatter_step(problem_, request.input_index));
    }

    void add(const Group& request) {
        plan_.set(Role::gather_rows,
                  families::gather_step(problem_, request.rows, {.rows = problem_.x_rows, .gates = request.gated}));
    }

    void add(const Combine& request) {
        plan_.set(Role::combine, families::combine_step(problem_, request.rows, request.gated));
    }

    void add(const CombineBackward& request) {
        if (request.wants_dy) {
            plan_.set(Role::gather_rows,
                      families::gather_step(problem_, request.rows,
                                            {.rows = RowOrder::token, .flat = true, .gates = request.gated}));
        }
        if (request.wants_dgates) {
            plan_.set(Role::gate_gradient, families::flat_gate_gradient_step(problem_, request.rows));
        }
    }

    void add(const Forward& request) {
        add_packing(request.packing);
        if (!request.packed) add_unpack(request.unpack);
        add_product();
        if (problem_.y_rows == RowOrder::token) add_sum({problem_.N, request.vector_rows});
    }

    void add(const BackwardInput& request) {
        add_packing(request.packing);
        if (!request.packed) add_unpack(request.unpack);
        add_product();
        const bool summed = problem_.x_rows == RowOrder::token;
        if (request.gates == BackwardInput::Gates::differentiated) {
            plan_.set(Role::gate_gradient,
                      families::gate_gradient_step(problem_, request.vector_rows,
                                                   {.left_rows = summed ? RowOrder::scattered : problem_.x_rows,
                                                    .scales_left = !summed,
                                                    .bias_vectors = request.vector_bias}));
        }
        if (summed) add_sum({problem_.K, request.vector_rows});
    }

    void add(const BackwardLora& request) {
        add_packing(request.packing);
        if (request.needs_xa) add_rank_rows(Role::xa);
        if (request.needs_yb) add_rank_rows(Role::yb);
        if (request.tensor_cores) {
            const families::GradientWork work = gradient_work(problem_, request);
            plan_.set(Role::gradients, families::gradients_step(work, *configuration(Role::gradients)));
            plan_.set(Role::reduce, families::gradients_reduce_step(work));
            return;
        }
        if (request.wants_da) {
            plan_.set(Role::gradient_a, families::gradient_simt_step(problem_, {problem_.K, problem_.x_rows}));
        }
        if (request.wants_db) {
            plan_.set(Role::gradient_b, families::gradient_simt_step(problem_, {problem_.N, problem_.y_rows}));
        }
    }

    void add(const GatedActivation& request) {
        plan_.set(Role::activation, families::activation_step(problem_, request.rows, request.work));
    }

    void add(const Dequantize& request) {
        plan_.set(Role::unpack, families::unpack_step(problem_, request.work, facts_));
    }

    void add(const ArrangeScales& request) {
        plan_.set(Role::arrange_scales, families::arrange_scales_step(request.work));
    }

    void add_packing(const families::Packing& packing) {
        if (packing.a) plan_.set(Role::pack_a, families::pack_a_step(problem_, *packing.a, facts_));
        if (packing.b) plan_.set(Role::pack_b, families::pack_b_step(problem_, *packing.b, facts_));
    }

    void add_unpack(const std::optional<Unpack>& unpack) {
        if (unpack) plan_.set(Role::unpack, families::unpack_step(problem_, unpack->work, facts_));
    }

    /// The sum of a token's rows, each times its gate.
    void add_sum(const RowShape& rows) {
        plan_.set(Role::combine, families::combine_step(problem_, rows, problem_.gates));
    }

    /// A product and, if it has an adapter, the rank rows that it reads, made by a step of their own unless it makes
    /// them itself.
    void add_product() {
        const std::optional<tuning::Configuration> chosen = configuration(Role::product);
        if (problem_.R > 0 && !(chosen && families::makes_rank_rows(*chosen))) add_rank_rows(*rank_role(request_));
        const families::ProductWork work = product_work(problem_, request_, Role::product);
        if (chosen && families::takes_permuted_rows(work.product, *chosen)) {
            plan_.set(Role::permute_rows, families::permute_step(problem_, work.product.red));
        }
        plan_.set(Role::product, families::product_step(work, chosen));
    }

    void add_rank_rows(Role role) {
        plan_.set(role, families::product_step(product_work(problem_, request_, role), configuration(role)));
    }

    /// Nothing without tensor cores, where there is one kernel.
    [[nodiscard]] std::optional<tuning::Configuration> configuration(Role role) const {
        if (!on_tensor_cores(request_)) return std::nullopt;
        return configuration_for(problem_, request_, role, facts_, choices_);
    }

    const Problem& problem_;
    const Request request_;
    const gpu::DeviceFacts& facts_;
    const Choices& choices_;
    Plan plan_;
};

}  // namespace

Plan make_plan(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts, const Choices& choices) {
    return Planner(problem, request, facts, choices).make();
}

}  // namespace smlora::plan
