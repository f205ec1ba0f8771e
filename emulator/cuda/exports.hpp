// Makes exactly the functions that smlora looks for visible; everything else in the library is hidden. The library does
// not link if one of them is missing (table.cpp).
#pragma once

#include "gpu/driver.hpp"

#define SMLORA_EXPORT(function) \
    extern "C" __attribute__((visibility("default"))) decltype(function) function;  // NOLINT
SMLORA_CUDA_FUNCTIONS(SMLORA_EXPORT)
// What tests capture graphs with.
SMLORA_EXPORT(cuStreamBeginCapture)
SMLORA_EXPORT(cuStreamEndCapture)
SMLORA_EXPORT(cuGraphInstantiate)
SMLORA_EXPORT(cuGraphLaunch)
SMLORA_EXPORT(cuGraphExecDestroy)
SMLORA_EXPORT(cuGraphDestroy)
#undef SMLORA_EXPORT
