// Which kernels an operation launches: decided without a GPU from the problem, the request and the device's facts.
#pragma once

#include "families/step.hpp"
#include "gpu/device.hpp"
#include "plan/request.hpp"
#include "tuning/configuration.hpp"

#include <smlora/problem.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

namespace smlora::plan {

/// The part that a kernel plays in its operation.
enum class Role : std::uint8_t {
    route_small,
    route_count,
    route_scan,
    route_scatter,
    gather_rows,
    combine,
    gate_gradient,
    activation,
    unpack,
    arrange_scales,
    pack_a,
    pack_b,
    permute_rows,  ///< of a product that multiplies codes
    xa,
    yb,
    product,
    decoding,    ///< no kernel: how a product takes codes, see search_space.hpp
    gradients,   ///< dA and dB on tensor cores
    gradient_a,  ///< dA alone, without tensor cores
    gradient_b,  ///< dB alone
    reduce,
    count,
};

struct Plan {
    std::array<std::optional<families::Step>, static_cast<std::size_t>(Role::count)> steps;

    [[nodiscard]] const families::Step& at(Role role) const { return *steps[static_cast<std::size_t>(role)]; }
    /// Null if the plan has no such step.
    [[nodiscard]] const families::Step* find(Role role) const { return has(role) ? &at(role) : nullptr; }
    [[nodiscard]] bool has(Role role) const { return steps[static_cast<std::size_t>(role)].has_value(); }
    void set(Role role, families::Step step) { steps[static_cast<std::size_t>(role)] = std::move(step); }
};

/// Which candidate each piece of work uses; the heuristic choice where none is set. See search_space.hpp.
class Choices {
 public:
    [[nodiscard]] const std::optional<tuning::Configuration>& of(Role role) const {
        return by_role_[static_cast<std::size_t>(role)];
    }
    void set(Role role, std::optional<tuning::Configuration> choice) {
        by_role_[static_cast<std::size_t>(role)] = std::move(choice);
    }

 private:
    std::array<std::optional<tuning::Configuration>, static_cast<std::size_t>(Role::count)> by_role_;
};

/// Throws Error{unsupported} when the device lacks the shared memory for every candidate of a piece of work.
[[nodiscard]] Plan make_plan(const Problem& problem, const Request& request, const gpu::DeviceFacts& facts,
                             const Choices& choices = {});

}  // namespace smlora::plan
