// The 16-bit formats by the kernels' own types.
#pragma once

#include "types.cuh"

namespace smlora::emulator {

template <class Element>
inline constexpr Format format_of;
template <>
inline constexpr Format format_of<bf16> = Format::bf16;
template <>
inline constexpr Format format_of<fp16> = Format::fp16;

}  // namespace smlora::emulator
