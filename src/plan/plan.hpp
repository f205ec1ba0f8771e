// Which kernels an operation launches: decided without a GPU from the problem, the bucket of T and the device's facts.
#pragma once

#include "gpu/device.hpp"
#include "jit/kernel_library.hpp"
#include "jit/kernel_spec.hpp"
#include "tune/bucket.hpp"
#include "tune/configuration.hpp"

#include <smlora/activation.hpp>
#include <smlora/problem.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace smlora::plan {

enum class Operation : std::uint8_t {
    route,
    group,
    combine,
    combine_backward,
    forward,
    backward_input,
    backward_lora,
    activation,
    activation_backward,
};

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
    pack_a,
    pack_b,
    xa,
    yb,
    product,
    gradients,   ///< dA and dB on tensor cores
    gradient_a,  ///< one of them without
    gradient_b,
    reduce,
    count,
};

/// What the tensor maps of a grouped product on wgmma follow from.
struct WgmmaShape {
    std::int64_t E, red, out;
    std::int64_t rank;  ///< columns of the rank rows, padding included; 0: no adapter
    bool weight_out_contiguous, lora_out_contiguous;
    bool rank_red_contiguous;  ///< of the matrix that makes the rank rows
    bool makes_rank_rows, bands;
    int tile_rows, rank_depth;
    DType dtype;
};

/// One kernel of a plan with the figures that its grid follows from.
struct Step {
    jit::KernelSpec spec;
    int tile_rows = 0;                          ///< rows of a tile, or rows that a block takes at once
    int column_tiles = 0;                       ///< tiles beside each other for one row tile
    std::optional<WgmmaShape> wgmma;            ///< of the family grouped_product_wgmma
    const gpu::LoadedKernel* kernel = nullptr;  ///< set when the plan is loaded
};

struct Plan {
    std::array<std::optional<Step>, static_cast<std::size_t>(Role::count)> steps;
    int multiprocessors = 0;

    [[nodiscard]] const Step& at(Role role) const { return *steps[static_cast<std::size_t>(role)]; }
    [[nodiscard]] bool has(Role role) const { return steps[static_cast<std::size_t>(role)].has_value(); }
    void set(Role role, Step step) { steps[static_cast<std::size_t>(role)] = std::move(step); }
};

/// What differs between calls of one problem, and changes which kernels are right.
struct Variant {
    Operation operation = Operation::forward;
    std::uint8_t bucket = 0;    ///< of T: log2, rounded to the nearest
    bool tensor_cores = false;  ///< 16-bit types with every row 16-byte aligned
    bool vector_rows = false;   ///< rows of the row kernels 16-byte aligned
    bool vector_bias = false;   ///< the same of the bias and the rows it is multiplied with
    bool pack_a = false;        ///< A needs to be repacked
    bool pack_b = false;
    std::int8_t fastest_a = 0;  ///< dimension of A's smallest stride: 0 inner, 1 outer, 2 expert
    std::int8_t fastest_b = 0;
    bool needs_xa = false;  ///< computed by this call
    bool needs_yb = false;
    bool wants_da = false;
    bool wants_db = false;
    bool wants_dgates = false;
    bool wants_dy = false;
    bool wants_a = false;              ///< activation_backward writes the activation, too
    bool gated = false;                ///< gates given to group, combine
    DType input_index = DType::int32;  ///< of top_idx
    std::int64_t width = 0;            ///< of the rows of group, combine, activation
    Activation activation = Activation::swiglu;
    GateLayout gate_layout = GateLayout::halves;

    friend bool operator==(const Variant&, const Variant&) = default;
};

/// Which candidate each piece of work shall have; the heuristic choice where nothing is said. See search_space.hpp.
class Choices {
 public:
    [[nodiscard]] const std::optional<tune::Configuration>& of(Role role) const {
        return by_role_[static_cast<std::size_t>(role)];
    }
    void set(Role role, std::optional<tune::Configuration> choice) {
        by_role_[static_cast<std::size_t>(role)] = std::move(choice);
    }

 private:
    std::array<std::optional<tune::Configuration>, static_cast<std::size_t>(Role::count)> by_role_;
};

/// Throws Error{unsupported} when the device has not the shared memory for any candidate of a piece of work.
[[nodiscard]] Plan make_plan(const Problem& problem, const Variant& variant, const gpu::DeviceFacts& facts,
                             const Choices& choices = {});

}  // namespace smlora::plan
