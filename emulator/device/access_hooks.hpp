// Every load and store of a kernel: kernels are compiled with -fsanitize=kernel-address, which puts a call to one of
// these before each. They check the address, and now and then let another thread run in between. Part of cuda.hpp.
#pragma once

namespace smlora::emulator {

__attribute__((no_sanitize("kernel-address"), always_inline)) inline void on_access(unsigned long address,
                                                                                    unsigned long bytes, bool store,
                                                                                    const void* code) {
    Thread& thread = *runtime->current;
    if (address - thread.stack_low < thread.stack_bytes) return;
    if (--thread.until_preemption < 0) runtime->preempt();
    const unsigned long offset = address - thread.shared_window;
    if (offset < shared_window_bytes && (address & (bytes - 1)) == 0) {
        unsigned usable;
        __builtin_memcpy(&usable, thread.shared_usable + offset / 8, sizeof usable);
        const unsigned all = (1U << bytes) - 1U;
        if ((usable >> offset % 8 & all) == all) {
            if (store) thread.shared_stores[offset / 16] = {runtime->now, thread.number};
            return;
        }
    }
    runtime->check_access(address, bytes, store, code);
}

}  // namespace smlora::emulator

#define SMLORA_EMULATOR_HOOKS(bytes)                                                                    \
    extern "C" __attribute__((no_sanitize("kernel-address"), used)) void __asan_load##bytes##_noabort(  \
        unsigned long address) {                                                                        \
        ::smlora::emulator::on_access(address, bytes, false, __builtin_return_address(0));              \
    }                                                                                                   \
    extern "C" __attribute__((no_sanitize("kernel-address"), used)) void __asan_store##bytes##_noabort( \
        unsigned long address) {                                                                        \
        ::smlora::emulator::on_access(address, bytes, true, __builtin_return_address(0));               \
    }
SMLORA_EMULATOR_HOOKS(1)
SMLORA_EMULATOR_HOOKS(2)
SMLORA_EMULATOR_HOOKS(4)
SMLORA_EMULATOR_HOOKS(8)
SMLORA_EMULATOR_HOOKS(16)
#undef SMLORA_EMULATOR_HOOKS

extern "C" __attribute__((no_sanitize("kernel-address"), used)) void __asan_loadN_noabort(unsigned long address,
                                                                                          unsigned long bytes) {
    ::smlora::emulator::runtime->check_access(address, bytes, false, __builtin_return_address(0));
}
extern "C" __attribute__((no_sanitize("kernel-address"), used)) void __asan_storeN_noabort(unsigned long address,
                                                                                           unsigned long bytes) {
    ::smlora::emulator::runtime->check_access(address, bytes, true, __builtin_return_address(0));
}
extern "C" __attribute__((no_sanitize("kernel-address"), used)) void __asan_handle_no_return() {}
