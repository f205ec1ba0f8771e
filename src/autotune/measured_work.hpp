// A piece of work as the tuner runs it: on operands of its own, with the same launches as in an operation.
#pragma once

#include "autotune/compare_results.hpp"
#include "autotune/measured_weight.hpp"
#include "families/launcher.hpp"
#include "plan/call_rows.hpp"
#include "plan/plan.hpp"

#include <smlora/problem.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace smlora::autotune {

/// One buffer of a set of operands.
struct Operand {
    std::int64_t bytes = 0;
    DType dtype = DType::bf16;
    bool input = true;                                ///< filled with random values; else written by the work
    bool gates = false;                               ///< values between -1 and 1
    std::shared_ptr<const std::string> pattern = {};  ///< filled with this again and again instead
};

/// A result that can be compared: a matrix at an operand's beginning. Its rows are so long that their norm bounds what
/// an element may be off by.
struct Output {
    std::size_t operand = 0;
    ResultMatrix matrix;
    bool grouped = false;  ///< a row for each routed row; those of entries left out may hold anything
};

class MeasuredWork {
 public:
    virtual ~MeasuredWork() = default;

    /// For routings of T tokens. Fewer tokens may need a larger operand.
    [[nodiscard]] virtual std::vector<Operand> operands(std::int64_t T) const = 0;
    [[nodiscard]] virtual std::vector<Output> outputs(std::int64_t T) const = 0;

    /// Multiplications of the reference for each row.
    [[nodiscard]] virtual double products_a_row() const = 0;

    /// The roles of a plan that this work launches.
    [[nodiscard]] virtual std::vector<plan::Role> roles() const = 0;
    /// Those of them that the choice decides.
    [[nodiscard]] virtual std::vector<plan::Role> own_roles() const = 0;

    /// A plan of plain kernels for the same roles.
    [[nodiscard]] virtual plan::Plan reference_plan() const = 0;

    /// `operands`: the addresses of one set.
    virtual void launch(const families::Launcher& launcher, const plan::Plan& plan, const std::vector<void*>& operands,
                        const plan::CallRows& rows) const = 0;
};

/// `role` is one of chosen_roles(problem, request); for Role::product the weights are plain.
[[nodiscard]] std::unique_ptr<MeasuredWork> measured_work(const Problem& problem, const plan::Request& request,
                                                          plan::Role role, const gpu::DeviceFacts& facts);

}  // namespace smlora::autotune
