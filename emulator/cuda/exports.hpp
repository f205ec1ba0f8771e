// Makes exactly the functions that smlora looks for visible; everything else in the library is hidden. The library does
// not link if one of them is missing (table.cpp).
#pragma once

#include "cuda/capture_functions.hpp"
#include "gpu/driver.hpp"

#define SMLORA_EXPORT(function) \
    extern "C" __attribute__((visibility("default"))) decltype(function) function;  // NOLINT
SMLORA_CUDA_FUNCTIONS(SMLORA_EXPORT)
SMLORA_CAPTURE_FUNCTIONS(SMLORA_EXPORT)
#undef SMLORA_EXPORT
