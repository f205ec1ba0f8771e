// For what the whole library is compiled for.
#define SMLORA_ISA baseline
#include "cpu/isa/kernels.inl"
