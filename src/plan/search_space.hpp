// The pieces of work of an operation that have several candidates, and the candidates.
//
// The kernel families make the candidates (families/registry.cpp); planning, recording, measuring and explaining take
// them as they are.
#pragma once

#include "plan/plan.hpp"
#include "tuning/candidate.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlora::plan {

/// The roles that stand for a piece of work with candidates:
///   decoding   how the product of arranged weights takes them: decodes their codes, by one of the products that do,
///              or multiplies what they are unpacked to
///   product    the product of forward or dX with everything that its adapter needs beside packing, whichever kernels
///              that takes
///   xa, yb     rank rows, where a kernel of their own makes them
///   gradients  dA and dB, with the kernel that adds up their partial sums
/// In the order in which to choose: the choice for decoding decides whether there is a product of plain weights, and
/// that for the product whether rank rows need a kernel. Empty without tensor cores: then there is one kernel for each
/// role.
[[nodiscard]] std::vector<Role> chosen_roles(const Problem& problem, const Request& request);

/// Whether a plan with these choices has that piece of work, one of chosen_roles, at all. It has no product if that of
/// Role::decoding decodes, and no rank rows if its product makes them on the way.
[[nodiscard]] bool is_needed(const Problem& problem, const Request& request, Role role, const gpu::DeviceFacts& facts,
                             const Choices& choices);

/// A piece of work as it is measured and recorded.
struct RecordedAs {
    Problem problem;
    Request request;
};

/// With the weights as they are for Role::decoding, else with plain ones: those of unpacked weights multiply these.
[[nodiscard]] RecordedAs recorded_as(const Problem& problem, const Request& request, Role role);

/// What records call it: "forward", "dx", "xa", "yb", "gradients", "forward decoding", .. Two requests of one problem
/// have the same slot if their records can serve each other.
[[nodiscard]] std::string slot_name(const Problem& problem, const Request& request, Role role);

/// A piece of work that records name.
struct NamedWork {
    Request request;
    Role role = Role::product;
};

/// The inverse of slot_name, on tensors that are aligned as far as the problem allows it; nothing if the problem has no
/// such piece of work.
[[nodiscard]] std::optional<NamedWork> work_called(const std::string& slot, const Problem& problem,
                                                   std::uint8_t bucket);

/// The problem whose records serve where `problem` has none of its own: the same with adapters of the problem's type,
/// gates in fp32 and routing in int32, and plain weights unless the records are of decoding. Legal candidates are the
/// same for both, and which of them is fast hardly differs: products have their adapter packed into the problem's type,
/// the gradients are written with twice the bytes, and gates and indices are a handful of bytes a row.
[[nodiscard]] Problem plain_problem(const Problem& problem);

/// The problems whose records serve for a piece of work, the nearest first: the plain problem; and where the work
/// touches neither weight nor bias, as the gradients do not, also with the other weight layout, with and without bias.
[[nodiscard]] std::vector<Problem> related_problems(const Problem& problem, Role role);

/// Every candidate, legal or not.
[[nodiscard]] tuning::SearchSpace search_space(const Problem& problem, const Request& request, Role role,
                                               const gpu::DeviceFacts& facts);

/// The configuration to use: what was chosen if that is a legal candidate, else the heuristic choice. That of the
/// product of a request that takes codes is one for Role::decoding. Throws Error{unsupported} when no candidate is
/// legal on the device.
[[nodiscard]] tuning::Configuration configuration_for(const Problem& problem, const Request& request, Role role,
                                                      const gpu::DeviceFacts& facts, const Choices& choices);

/// The template families that the candidates are made from, sorted, each once.
[[nodiscard]] std::vector<std::string> families_of(const tuning::SearchSpace& space);

}  // namespace smlora::plan
