// That an operation's outputs share no memory with its other arguments.
#pragma once

#include <smlora/operations.hpp>
#include <smlora/tensor.hpp>

#include <cstdint>
#include <initializer_list>

namespace smlora::check {

/// An argument and the memory it spans, from its first byte past its last one; none if it is not given or empty. A
/// tensor has passed check_tensor, which refuses negative strides, and outlives its operand.
struct Operand {
    Operand(const char* argument_, const Tensor& tensor_) noexcept;
    explicit Operand(const Workspace& workspace) noexcept;

    const char* argument;
    const Tensor* tensor = nullptr;  ///< null: every byte of the span
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
};

/// Whether two operands have a byte in common. Slices of one buffer count as apart, although their spans meet: left and
/// right columns of a matrix, A and B of each expert in turn. The search is exact but bounded: a pair of views with
/// several unrelated strides that it cannot decide counts as apart.
[[nodiscard]] bool overlap(const Operand& a, const Operand& b);

/// Throws Error{invalid_argument} if an output, the workspace among them, shares memory with an input or with another
/// output. Inputs may share memory with each other.
void check_apart(std::initializer_list<Operand> outputs, std::initializer_list<Operand> inputs);

/// The same with all that a weight consists of as the inputs; outputs are not compared with each other.
void check_apart(std::initializer_list<Operand> outputs, const Weight& W);

/// The same with the arrays of a routing among the inputs.
void check_apart(std::initializer_list<Operand> outputs, const Routing& routing, std::initializer_list<Operand> inputs);

}  // namespace smlora::check
