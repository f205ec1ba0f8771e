// Compiling everything that a training step needs before it runs; needs NVRTC, no GPU.
#pragma once

#include <smlora/activation.hpp>
#include <smlora/engine.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace smlora {

/// A gated activation between two projections, and its gradient.
struct PrewarmActivation {
    Activation activation = Activation::swiglu;  ///< which function
    GateLayout layout = GateLayout::halves;      ///< of h
    std::int64_t width = 0;     ///< of the rows of a; those of h, which the first projection makes, are twice as wide
    DType dtype = DType::bf16;  ///< of h and a
};

/// What is to be compiled.
struct PrewarmOptions {
    std::vector<Problem> problems;     ///< the projections of the model
    std::vector<std::int64_t> tokens;  ///< numbers of tokens that the job will use; empty: a few typical ones
    std::vector<std::string> archs;    ///< "sm_90a", ..; empty: the GPU's, else sm_90a
    int jobs = 0;                      ///< kernels compiled at once; 0: the engine's threads
    std::vector<PrewarmActivation> activations = {};  ///< between the projections
    bool check_only = false;                          ///< compile nothing: the report says what the cache has
};

/// One kernel is done; called from one thread at a time.
struct PrewarmProgress {
    std::size_t done = 0;        ///< kernels, compiled or found
    std::size_t total = 0;       ///< distinct kernels
    std::size_t compiled = 0;    ///< of `done`; the rest was in the cache
    std::string_view kernel;     ///< readable name of the kernel just finished
    double compile_seconds = 0;  ///< 0 when it was in the cache
    std::string_view compiling;  ///< one of the kernels under way meanwhile; empty when none is left
};

/// What prewarm did.
struct PrewarmReport {
    std::size_t kernels = 0;            ///< distinct ones that the problems need
    std::size_t compiled = 0;           ///< by this call
    std::size_t found = 0;              ///< in a cache layer already
    double seconds = 0;                 ///< from the call to its return
    double compile_seconds = 0;         ///< summed over kernels
    std::vector<std::string> warnings;  ///< kernels that spill registers, entries that could not be stored
    std::size_t not_stored = 0;         ///< of `compiled`, those that the next process will not find; the log says why
    std::size_t works = 0;              ///< pieces of work of these problems and numbers of tokens that have candidates
    std::size_t recorded = 0;           ///< of `works`, those whose fastest candidate is recorded, by whatever types
};

/// Compiles what is missing for forward, backward_input, backward_lora, combine, group and route of every problem, and
/// for the activations, into the engine's cache. Throws Error{compile} with the log of the first kernel that fails;
/// what was compiled stays.
SMLORA_API PrewarmReport prewarm(const Engine& engine, const PrewarmOptions& options,
                                 const std::function<void(const PrewarmProgress&)>& progress = {});

}  // namespace smlora
