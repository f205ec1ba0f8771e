// How the driver stand-in reaches the kernels of a shared object. The NVRTC stand-in puts one SMLORA_EMULATOR_KERNEL
// for each kernel behind the source.
#pragma once

#include "cuda.hpp"
#include "kernel_facts.hpp"

namespace smlora::emulator {

/// Without hooks: the parameters are copied from memory of the host.
template <class Function>
struct Entry;

template <class... Parameters>
struct Entry<void(Parameters...)> {
    static constexpr unsigned count = sizeof...(Parameters);
    static constexpr unsigned bytes[count + 1] = {sizeof(Parameters)..., 0};

    __attribute__((no_sanitize("kernel-address"))) static void call(void (*kernel)(Parameters...),
                                                                    void* const* parameters) {
        call_with(kernel, parameters, Numbers<__integer_pack(count)...>());
    }

 private:
    template <unsigned... Index>
    struct Numbers {};
    template <unsigned... Index>
    __attribute__((no_sanitize("kernel-address"))) static void call_with(void (*kernel)(Parameters...),
                                                                         void* const* parameters, Numbers<Index...>) {
        kernel(*static_cast<const Parameters*>(parameters[Index])...);
    }
};

struct ParameterRecord {
    unsigned char format, attribute;
    unsigned short bytes;
    unsigned index;
    unsigned short ordinal, offset;
    unsigned size_and_space;
};

}  // namespace smlora::emulator

/// The record of section .nv.info.<kernel> is the one of a cubin that has the size of the first parameter.
#define SMLORA_EMULATOR_KERNEL(name, threads, ...)                                                                     \
    __attribute__((no_sanitize("kernel-address"))) static void name##_entry(void* const* parameters) {                 \
        ::smlora::emulator::Entry<decltype(name)>::call(name, parameters);                                             \
    }                                                                                                                  \
    extern "C" __attribute__((visibility("default"))) constexpr ::smlora::emulator::KernelFacts name##_facts = {       \
        name##_entry,                                                                                                  \
        ::smlora::emulator::Entry<decltype(name)>::bytes,                                                              \
        ::smlora::emulator::Entry<decltype(name)>::count,                                                              \
        threads,                                                                                                       \
        {__VA_ARGS__}};                                                                                                \
    __attribute__((section(".nv.info." #name), used)) static const ::smlora::emulator::ParameterRecord name##_info = { \
        4, 0x17, 12, 0, 0, 0, ::smlora::emulator::Entry<decltype(name)>::bytes[0] << 18U};

extern "C" __attribute__((visibility("default"))) void smlora_emulator_attach(::smlora::emulator::Runtime* runtime) {
    ::smlora::emulator::runtime = runtime;
}
