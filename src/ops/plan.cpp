#include "ops/plan.hpp"

#include "ops/product_step.hpp"
#include "ops/row_steps.hpp"
#include "ops/wgmma_product.hpp"

#include <bit>

namespace smlora::ops {
namespace {

void set_pack_steps(Plan& plan, const Problem& problem, const Variant& variant) {
    if (variant.pack_a) plan.set(Role::pack_a, pack_a_step(problem, variant));
    if (variant.pack_b) plan.set(Role::pack_b, pack_b_step(problem, variant));
}

/// xa_i = scaling x_i A_e^T, A packed or direct as [E, padded rank, K].
Step xa_step(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    ProductKernel product;
    product.red = problem.K;
    product.out = padded_rank(problem);
    product.out_weight = problem.R;
    product.rows = problem.x_rows;
    product.out_rows = RowOrder::grouped;
    return product_step(problem, product, variant, facts);
}

/// yb_i = scaling dy_i B_e, B packed or direct as [E, N, padded rank].
Step yb_step(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    ProductKernel product;
    product.red = problem.N;
    product.out = padded_rank(problem);
    product.out_weight = problem.R;
    product.rows = problem.y_rows;
    product.out_rows = RowOrder::grouped;
    product.weight_out_contiguous = true;
    return product_step(problem, product, variant, facts);
}

/// A product and, if it has an adapter, the rank rows that it reads, made by `rank_step` unless it makes them itself.
void set_product_steps(Plan& plan, const Problem& problem, const ProductKernel& product, Role rank_role,
                       Step (*rank_step)(const Problem&, const Variant&, const gpu::DeviceFacts&),
                       const Variant& variant, const gpu::DeviceFacts& facts) {
    const bool wgmma = wgmma_serves(product, variant, facts);
    if (wgmma && wgmma_makes_rank_rows(product)) {
        plan.set(Role::product_first, wgmma_step(problem, product, variant, WgmmaPart::first));
        if (wgmma_has_rest(product)) plan.set(Role::product, wgmma_step(problem, product, variant, WgmmaPart::rest));
        return;
    }
    if (product.rank > 0) plan.set(rank_role, rank_step(problem, variant, facts));
    plan.set(Role::product, wgmma ? wgmma_step(problem, product, variant, WgmmaPart::whole)
                                  : product_step(problem, product, variant, facts));
}

void plan_forward(Plan& plan, const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    if (problem.R > 0) set_pack_steps(plan, problem, variant);
    const bool combined = problem.y_rows == RowOrder::token;
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    ProductKernel product;
    product.red = problem.K;
    product.out = problem.N;
    product.out_weight = problem.N;
    product.rank = problem.R;
    product.rows = problem.x_rows;
    product.out_rows = combined ? RowOrder::scattered : problem.y_rows;
    product.weight_out_contiguous = ekn;
    product.weight_row_stride = ekn ? problem.N : problem.K;
    product.bias = problem.bias;
    set_product_steps(plan, problem, product, Role::xa, xa_step, variant, facts);
    if (combined) plan.set(Role::combine, combine_step(problem, problem.N, variant.vector_rows, problem.gates));
}

void plan_backward_input(Plan& plan, const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    if (problem.R > 0) set_pack_steps(plan, problem, variant);
    const bool reduced = problem.x_rows == RowOrder::token;
    const bool ekn = problem.weight_layout == WeightLayout::ekn;
    ProductKernel product;
    product.red = problem.N;
    product.out = problem.K;
    product.out_weight = problem.K;
    product.rank = problem.R;
    product.rows = problem.y_rows;
    product.out_rows = reduced ? RowOrder::scattered : problem.x_rows;
    product.weight_out_contiguous = !ekn;
    product.weight_row_stride = ekn ? problem.N : problem.K;
    product.lora_out_contiguous = true;
    // dgates needs the rows before their gate; the sum over a token's rows can apply it itself.
    product.gates = problem.gates && !variant.wants_dgates && !reduced;
    set_product_steps(plan, problem, product, Role::yb, yb_step, variant, facts);
    if (variant.wants_dgates) {
        plan.set(Role::gate_gradient, gate_gradient_step(problem, variant, product.out_rows, !reduced));
    }
    if (reduced) plan.set(Role::combine, combine_step(problem, problem.K, variant.vector_rows, problem.gates));
}

void plan_backward_lora(Plan& plan, const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    set_pack_steps(plan, problem, variant);
    if (variant.needs_xa) plan.set(Role::xa, xa_step(problem, variant, facts));
    if (variant.needs_yb) plan.set(Role::yb, yb_step(problem, variant, facts));
    if (variant.tensor_cores) {
        plan.set(Role::gradients, gradients_step(problem, variant, facts));
        plan.set(Role::reduce, gradients_reduce_step(problem, variant));
        return;
    }
    if (variant.wants_da) plan.set(Role::gradient_a, gradient_step(problem, problem.K, problem.x_rows));
    if (variant.wants_db) plan.set(Role::gradient_b, gradient_step(problem, problem.N, problem.y_rows));
}

}  // namespace

std::uint8_t bucket_of(std::int64_t T) {
    if (T <= 1) return 0;
    // The nearest power of two on a logarithmic scale: up from 2^b sqrt(2).
    const auto floor = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(T))) - 1;
    const double low = static_cast<double>(std::int64_t{1} << floor);
    return static_cast<std::uint8_t>(static_cast<double>(T) > low * 1.4142135623730951 ? floor + 1 : floor);
}

Plan make_plan(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts) {
    Plan plan;
    plan.multiprocessors = facts.multiprocessors;
    switch (variant.operation) {
        case Operation::route:
            set_route_steps(plan, problem, variant, facts);
            break;
        case Operation::group:
            plan.set(Role::gather_rows,
                     gather_step(problem, variant, variant.width, problem.x_rows, false, variant.gated));
            break;
        case Operation::combine:
            plan.set(Role::combine, combine_step(problem, variant.width, variant.vector_rows, variant.gated));
            break;
        case Operation::combine_backward:
            if (variant.wants_dy) {
                plan.set(Role::gather_rows,
                         gather_step(problem, variant, variant.width, RowOrder::token, true, variant.gated));
            }
            if (variant.wants_dgates) {
                plan.set(Role::gate_gradient, flat_gate_gradient_step(problem, variant, variant.width));
            }
            break;
        case Operation::forward:
            plan_forward(plan, problem, variant, facts);
            break;
        case Operation::backward_input:
            plan_backward_input(plan, problem, variant, facts);
            break;
        case Operation::backward_lora:
            plan_backward_lora(plan, problem, variant, facts);
            break;
        case Operation::activation:
            plan.set(Role::activation, activation_step(problem, variant, false));
            break;
        case Operation::activation_backward:
            plan.set(Role::activation, activation_step(problem, variant, true));
            break;
    }
    return plan;
}

}  // namespace smlora::ops
