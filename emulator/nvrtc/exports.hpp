// Makes exactly the functions that smlora looks for visible; everything else in the library is hidden.
#pragma once

#include "jit/nvrtc.hpp"

#define SMLORA_EXPORT(function) \
    extern "C" __attribute__((visibility("default"))) decltype(function) function;  // NOLINT
SMLORA_NVRTC_FUNCTIONS(SMLORA_EXPORT)
#undef SMLORA_EXPORT
