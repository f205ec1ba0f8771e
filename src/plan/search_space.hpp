// The pieces of an operation that can be done in several ways, and the ways.
//
// A new kernel family becomes one more list of candidates here and one more branch where a plan is made from a
// configuration (plan.cpp); recording, measuring and explaining take it as it is.
#pragma once

#include "plan/plan.hpp"
#include "tune/candidate.hpp"

#include <string>
#include <vector>

namespace smlora::plan {

/// The roles that stand for a piece of work with candidates:
///   product    the product of forward or dX with everything that its adapter needs beside packing, whichever kernels
///              that takes
///   xa, yb     rank rows, where a kernel of their own makes them
///   gradients  dA and dB, the adding up of their pieces included
/// In the order in which they are to be chosen: the choice for a product tells whether it needs rank rows made. Empty
/// without tensor cores: then there is one kernel for each role.
[[nodiscard]] std::vector<Role> chosen_roles(const Problem& problem, const Variant& variant);

/// Whether a plan with these choices has that piece of work at all.
[[nodiscard]] bool is_needed(const Plan& plan, Role role);

/// What records call it: "forward", "dx", "xa", "yb", "gradients", .. Variants whose kernels differ in more than what
/// every variant has differ in their slots.
[[nodiscard]] std::string slot_name(const Problem& problem, const Variant& variant, Role role);

/// The problem whose records serve where `problem` has none of its own: the same with adapters of the problem's type,
/// gates in fp32 and routing in int32. Legal candidates are the same for both, and which of them is fast hardly
/// differs: products have their adapter packed into the problem's type, the gradients are written with twice the bytes,
/// and gates and indices are a handful of bytes a row.
[[nodiscard]] Problem plain_problem(const Problem& problem);

/// Whose records serve for a piece of work, the nearest first: the plain problem's; and those of its other weight
/// layout, with and without a bias, where neither is touched, as in the gradients, whose caller need not say them.
[[nodiscard]] std::vector<Problem> related_problems(const Problem& problem, Role role);

/// Every candidate, legal or not.
[[nodiscard]] tune::SearchSpace search_space(const Problem& problem, const Variant& variant, Role role,
                                             const gpu::DeviceFacts& facts);

/// The configuration to use: what was chosen if it is a legal candidate, else the heuristic choice. Throws
/// Error{unsupported} when no candidate is legal on the device.
[[nodiscard]] tune::Configuration configuration_for(const Problem& problem, const Variant& variant, Role role,
                                                    const gpu::DeviceFacts& facts, const Choices& choices);

/// The template families that the candidates are made from, sorted, each once.
[[nodiscard]] std::vector<std::string> families_of(const tune::SearchSpace& space);

}  // namespace smlora::plan
