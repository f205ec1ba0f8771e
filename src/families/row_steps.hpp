// The memory-bound kernels as steps of a plan: routing, gathering, combining, gates, activations, repacking of
// adapters.
#pragma once

#include "plan/plan.hpp"

namespace smlora::families {

inline constexpr int row_threads = 256;

/// Entries that route_small sorts at most: beyond it one multiprocessor is slower than three launches on all.
inline constexpr std::int64_t route_small_capacity = 16384;

/// Columns of the table of counts.
[[nodiscard]] std::int64_t route_columns(const Problem& problem);

/// Sets route_small, where it fits, or route_count, route_scan and route_scatter.
void set_route_steps(plan::Plan& plan, const Problem& problem, const plan::Variant& variant,
                     const gpu::DeviceFacts& facts);

/// out_i = gate row(i). `flat`: in flat order, which needs no routing.
[[nodiscard]] plan::Step gather_step(const Problem& problem, const plan::Variant& variant, std::int64_t width,
                                     RowOrder rows, bool flat, bool gates);

[[nodiscard]] plan::Step combine_step(const Problem& problem, std::int64_t width, bool vector_rows, bool gates);

/// dgates of combine: both operands at hand in flat order.
[[nodiscard]] plan::Step flat_gate_gradient_step(const Problem& problem, const plan::Variant& variant,
                                                 std::int64_t width);

/// dgates of backward_input: from the product before its gate, whose rows are scaled afterwards if `scale`.
[[nodiscard]] plan::Step gate_gradient_step(const Problem& problem, const plan::Variant& variant, RowOrder left_rows,
                                            bool scale);

/// The gated activation; `backward`: its gradient, with the activation itself if the variant wants it.
[[nodiscard]] plan::Step activation_step(const Problem& problem, const plan::Variant& variant, bool backward);

[[nodiscard]] plan::Step pack_a_step(const Problem& problem, const plan::Variant& variant);
[[nodiscard]] plan::Step pack_b_step(const Problem& problem, const plan::Variant& variant);

}  // namespace smlora::families
