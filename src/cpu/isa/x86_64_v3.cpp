// For AVX2 and FMA; src/CMakeLists.txt has the option.
#define SMLORA_ISA x86_64_v3
#include "cpu/isa/kernels.inl"
