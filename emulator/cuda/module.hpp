// Loaded images and their kernels.
#pragma once

#include "cuda/exports.hpp"
#include "runtime/kernel.hpp"

#include <map>
#include <string>

struct CUfunc_st {
    smlora::emulator::Kernel kernel;
};

struct CUmod_st {
    void* handle = nullptr;  ///< of the dynamic loader
    int file = -1;           ///< in memory, with the shared object
    smlora::emulator::Code code;
    std::map<std::string, CUfunc_st> functions;
};
