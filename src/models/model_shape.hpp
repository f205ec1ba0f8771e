// The expert layer of a model, and the problems that training it makes.
#pragma once

#include <smlora/activation.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace smlora::models {

/// The type in which a model's router gives its gates.
enum class GateType {
    either,  ///< not known
    model,   ///< that of the model
    fp32,
};

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
    WeightFormat weights = {};  ///< of both projections
    GateType gates = GateType::either;
    bool gated = true;  ///< gate and up projection in one, else up alone

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

/// The part of an expert layer that a rank of expert parallelism has.
struct ExpertParallelism {
    std::int64_t ranks = 1;      ///< that hold the model's experts together
    bool shares_tokens = false;  ///< every rank sees all rows and leaves out the experts of others; else each row that
                                 ///< a rank receives has one expert, and its gate is applied where it came from
};

/// The projections of a rank. Throws Error{invalid_argument} if the ranks do not divide the experts.
[[nodiscard]] std::vector<Projection> projections_of_rank(const ModelShape& model, std::int64_t rank,
                                                          const ExpertParallelism& parallelism);

}  // namespace smlora::models
