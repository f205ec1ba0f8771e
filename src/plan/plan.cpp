#include "plan/plan.hpp"

#include "families/product_step.hpp"
#include "families/projection_products.hpp"
#include "families/row_steps.hpp"
#include "families/wgmma_product.hpp"
#include "plan/search_space.hpp"

namespace smlora::plan {
namespace {

void set_pack_steps(Plan& plan, const Problem& problem, const Variant& variant) {
    if (variant.pack_a) plan.set(Role::pack_a, families::pack_a_step(problem, variant));
    if (variant.pack_b) plan.set(Role::pack_b, families::pack_b_step(problem, variant));
}

/// What a step of the plan depends on.
struct Planning {
    const Problem& problem;
    const Variant& variant;
    const gpu::DeviceFacts& facts;
    const Choices& choices;

    /// Nothing without tensor cores, where there is one kernel.
    [[nodiscard]] std::optional<tune::Configuration> configuration(Role role) const {
        if (!variant.tensor_cores) return std::nullopt;
        return configuration_for(problem, variant, role, facts, choices);
    }
};

void set_rank_step(Plan& plan, const Planning& planning, Role role) {
    const families::ProductKernel product =
        role == Role::xa ? families::xa_product(planning.problem) : families::yb_product(planning.problem);
    plan.set(role, families::product_step(planning.problem, product, planning.configuration(role)));
}

/// A product and, if it has an adapter, the rank rows that it reads, made by a step of their own unless it makes them
/// itself.
void set_product_steps(Plan& plan, const Planning& planning, const families::ProductKernel& product, Role rank_role) {
    const Problem& problem = planning.problem;
    const std::optional<tune::Configuration> configuration = planning.configuration(Role::product);
    const bool wgmma = configuration && configuration->family == families::product_wgmma_family;
    if (product.rank > 0 && !(configuration && families::makes_rank_rows(*configuration))) {
        set_rank_step(plan, planning, rank_role);
    }
    plan.set(Role::product, wgmma ? families::wgmma_step(problem, product, *configuration)
                                  : families::product_step(problem, product, configuration));
}

void plan_forward(Plan& plan, const Planning& planning) {
    const Problem& problem = planning.problem;
    if (problem.R > 0) set_pack_steps(plan, problem, planning.variant);
    set_product_steps(plan, planning, families::forward_product(problem), Role::xa);
    if (problem.y_rows == RowOrder::token) {
        plan.set(Role::combine,
                 families::combine_step(problem, problem.N, planning.variant.vector_rows, problem.gates));
    }
}

void plan_backward_input(Plan& plan, const Planning& planning) {
    const Problem& problem = planning.problem;
    const Variant& variant = planning.variant;
    if (problem.R > 0) set_pack_steps(plan, problem, variant);
    const bool reduced = problem.x_rows == RowOrder::token;
    const families::ProductKernel product = families::dx_product(problem, variant);
    set_product_steps(plan, planning, product, Role::yb);
    if (variant.wants_dgates) {
        plan.set(Role::gate_gradient, families::gate_gradient_step(problem, variant, product.out_rows, !reduced));
    }
    if (reduced)
        plan.set(Role::combine, families::combine_step(problem, problem.K, variant.vector_rows, problem.gates));
}

void plan_backward_lora(Plan& plan, const Planning& planning) {
    const Problem& problem = planning.problem;
    const Variant& variant = planning.variant;
    set_pack_steps(plan, problem, variant);
    if (variant.needs_xa) set_rank_step(plan, planning, Role::xa);
    if (variant.needs_yb) set_rank_step(plan, planning, Role::yb);
    if (variant.tensor_cores) {
        plan.set(Role::gradients, families::gradients_step(problem, variant, *planning.configuration(Role::gradients)));
        plan.set(Role::reduce, families::gradients_reduce_step(problem, variant));
        return;
    }
    if (variant.wants_da) plan.set(Role::gradient_a, families::gradient_step(problem, problem.K, problem.x_rows));
    if (variant.wants_db) plan.set(Role::gradient_b, families::gradient_step(problem, problem.N, problem.y_rows));
}

}  // namespace

Plan make_plan(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts, const Choices& choices) {
    const Planning planning{problem, variant, facts, choices};
    Plan plan;
    plan.multiprocessors = facts.multiprocessors;
    switch (variant.operation) {
        case Operation::route:
            families::set_route_steps(plan, problem, variant, facts);
            break;
        case Operation::group:
            plan.set(Role::gather_rows,
                     families::gather_step(problem, variant, variant.width, problem.x_rows, false, variant.gated));
            break;
        case Operation::combine:
            plan.set(Role::combine, families::combine_step(problem, variant.width, variant.vector_rows, variant.gated));
            break;
        case Operation::combine_backward:
            if (variant.wants_dy) {
                plan.set(Role::gather_rows,
                         families::gather_step(problem, variant, variant.width, RowOrder::token, true, variant.gated));
            }
            if (variant.wants_dgates) {
                plan.set(Role::gate_gradient, families::flat_gate_gradient_step(problem, variant, variant.width));
            }
            break;
        case Operation::forward:
            plan_forward(plan, planning);
            break;
        case Operation::backward_input:
            plan_backward_input(plan, planning);
            break;
        case Operation::backward_lora:
            plan_backward_lora(plan, planning);
            break;
        case Operation::activation:
            plan.set(Role::activation, families::activation_step(problem, variant, false));
            break;
        case Operation::activation_backward:
            plan.set(Role::activation, families::activation_step(problem, variant, true));
            break;
    }
    return plan;
}

}  // namespace smlora::plan
