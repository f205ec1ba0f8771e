// The CPU backend: the operations of smlora/operations.hpp on host memory. Arguments were validated before.
#pragma once

#include "args/arrange_scales.h"
#include "util/thread_pool.hpp"

#include <smlora/activation.hpp>
#include <smlora/operations.hpp>
#include <smlora/weight.hpp>

#include <cstdint>

namespace smlora::cpu {

void route(util::ThreadPool& threads, const Problem& problem, const RouteArgs& args);
void group(util::ThreadPool& threads, const Problem& problem, const GroupArgs& args);
void combine(util::ThreadPool& threads, const Problem& problem, const CombineArgs& args);
void combine_backward(util::ThreadPool& threads, const Problem& problem, const CombineBackwardArgs& args);
void activation(util::ThreadPool& threads, const Problem& problem, const ActivationArgs& args);
void activation_backward(util::ThreadPool& threads, const Problem& problem, const ActivationBackwardArgs& args);
void dequantize(util::ThreadPool& threads, const DequantizeArgs& args);
ArrangeFindings arrange_scales(util::ThreadPool& threads, const ArrangeScalesArgs& args);
void forward(util::ThreadPool& threads, const Problem& problem, const ForwardArgs& args);
void backward_input(util::ThreadPool& threads, const Problem& problem, const BackwardInputArgs& args);
void backward_lora(util::ThreadPool& threads, const Problem& problem, const BackwardLoraArgs& args);

}  // namespace smlora::cpu
