// For AVX-512; src/CMakeLists.txt has the option.
#define SMLORA_ISA x86_64_v4
#include "cpu/isa/kernels.inl"
