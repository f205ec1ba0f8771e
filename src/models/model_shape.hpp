// The expert layer of a model, and the problems that training it makes.
#pragma once

#include <smlora/activation.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlora::models {

/// What the routed experts of a model look like, in the words of a Hugging Face config.json.
struct ModelShape {
    std::string name;
    std::int64_t num_experts = 0;
    std::int64_t hidden_size = 0;
    std::int64_t intermediate_size = 0;  ///< of one expert
    std::int64_t top_k = 0;
    WeightLayout weight_layout = WeightLayout::enk;  ///< how the checkpoint's library stores gate_up and down
    bool bias = false;                               ///< both projections have one
    DType dtype = DType::bf16;
    std::optional<Activation> activation = Activation::swiglu;  ///< between the projections; none: the model's own code
    GateLayout gate_layout = GateLayout::halves;
    bool gated = true;          ///< gate and up projection in one, else up alone
    WeightFormat weights = {};  ///< of both projections

    friend bool operator==(const ModelShape&, const ModelShape&) = default;
};

/// One of the two matrix products of an expert.
struct Projection {
    std::string name;  ///< "gate_up", of experts without a gate "up", or "down"
    Problem problem;
};

/// gate_up takes the tokens as they are and leaves its rows grouped for the activation; down takes grouped rows and
/// sums a token's experts, weighted by their gates. K and N follow: hidden -> 2 * intermediate -> hidden, without a
/// gate hidden -> intermediate -> hidden. Quantised weights are [E, N, K] unless bitsandbytes made them, which keeps
/// the layout. Gate and up are quantised apart where that is not the same: each has a global scale (nvfp4), and squares
/// of its own if they do not divide it (fp8).
[[nodiscard]] std::vector<Projection> projections(const ModelShape& model, std::int64_t rank);

}  // namespace smlora::models
