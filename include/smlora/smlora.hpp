// Everything: LoRA training of Mixture-of-Experts layers. Start with Engine, Problem and operations.hpp.
#pragma once

#include <smlora/activation.hpp>
#include <smlora/cache.hpp>
#include <smlora/determinism.hpp>
#include <smlora/dtype.hpp>
#include <smlora/encoding.hpp>
#include <smlora/engine.hpp>
#include <smlora/error.hpp>
#include <smlora/memory.hpp>
#include <smlora/operations.hpp>
#include <smlora/prewarm.hpp>
#include <smlora/problem.hpp>
#include <smlora/system.hpp>
#include <smlora/tensor.hpp>
#include <smlora/tune.hpp>
#include <smlora/tuning.hpp>
#include <smlora/version.hpp>
#include <smlora/weight.hpp>
