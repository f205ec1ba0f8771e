// What CUDA C++ gives a kernel without an #include, for g++: included before every kernel's source.
#pragma once

#include "runtime.hpp"

#define __device__
#define __host__
#define __global__ __attribute__((visibility("default")))
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

/// A function of the emulator's: without hooks, as it reads memory that is not the GPU's.
#define SMLORA_EMULATED inline __attribute__((no_sanitize("kernel-address"), noinline))

namespace smlora::emulator {

/// Set when the kernel is loaded.
inline Runtime* runtime = nullptr;

template <class To, class From>
inline To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From));
    return __builtin_bit_cast(To, value);
}

template <class T>
inline unsigned long long to_bits(T value) {
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <class T>
inline T from_bits(unsigned long long bits) {
    T value;
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}

/// The block's dynamic shared memory, aligned to `alignment` or, if that is 0, as T is.
template <class T>
SMLORA_EMULATED void* dynamic_shared(unsigned alignment) {
    return runtime->dynamic_shared(alignment > alignof(T) ? alignment : alignof(T));
}

template <class T>
SMLORA_EMULATED T& static_shared(const void* key, unsigned alignment) {
    return *static_cast<T*>(runtime->static_shared(key, sizeof(T), alignment > alignof(T) ? alignment : alignof(T)));
}

}  // namespace smlora::emulator

#define SMLORA_INDEX(name)                                                                  \
    namespace smlora::emulator {                                                            \
    /* The same for a thread as long as it lives. */                                        \
    SMLORA_EMULATED __attribute__((const)) Index3 name() { return runtime->current->name; } \
    }
SMLORA_INDEX(thread_idx)
SMLORA_INDEX(block_idx)
SMLORA_INDEX(block_dim)
SMLORA_INDEX(grid_dim)
#undef SMLORA_INDEX
#define threadIdx (::smlora::emulator::thread_idx())
#define blockIdx (::smlora::emulator::block_idx())
#define blockDim (::smlora::emulator::block_dim())
#define gridDim (::smlora::emulator::grid_dim())
constexpr int warpSize = 32;

#define SMLORA_WHERE ::smlora::emulator::Where where = ::smlora::emulator::Where::here()

// Synchronisation.
SMLORA_EMULATED void __syncthreads(SMLORA_WHERE) { ::smlora::emulator::runtime->barrier_sync(0, 0, where); }
SMLORA_EMULATED void __syncwarp(unsigned mask = 0xffffffffU, SMLORA_WHERE) {
    ::smlora::emulator::runtime->sync_warp(mask, where);
}
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}
SMLORA_EMULATED void __nanosleep(unsigned) { ::smlora::emulator::runtime->preempt(); }
[[noreturn]] SMLORA_EMULATED void __trap(SMLORA_WHERE) { ::smlora::emulator::runtime->trap("__trap()", where); }
SMLORA_EMULATED long long clock64() { return ::smlora::emulator::runtime->clock(); }

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long bytes = (static_cast<unsigned long long>(b) << 32) | a;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; ++i) {
        result |= static_cast<unsigned>((bytes >> ((selector >> (4 * i) & 7U) * 8)) & 0xffU) << (8 * i);
    }
    return result;
}

// Warp functions.
template <class T>
SMLORA_EMULATED T __shfl_sync(unsigned mask, T value, int source, int width = 32, SMLORA_WHERE) {
    using namespace ::smlora::emulator;
    return from_bits<T>(runtime->shuffle(Shuffle::index, mask, to_bits(value), unsigned(source), width, where));
}
template <class T>
SMLORA_EMULATED T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SMLORA_WHERE) {
    using namespace ::smlora::emulator;
    return from_bits<T>(runtime->shuffle(Shuffle::up, mask, to_bits(value), delta, width, where));
}
template <class T>
SMLORA_EMULATED T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SMLORA_WHERE) {
    using namespace ::smlora::emulator;
    return from_bits<T>(runtime->shuffle(Shuffle::down, mask, to_bits(value), delta, width, where));
}
template <class T>
SMLORA_EMULATED T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SMLORA_WHERE) {
    using namespace ::smlora::emulator;
    return from_bits<T>(runtime->shuffle(Shuffle::exclusive_or, mask, to_bits(value), unsigned(lanes), width, where));
}
template <class T>
SMLORA_EMULATED unsigned __match_any_sync(unsigned mask, T value, SMLORA_WHERE) {
    return ::smlora::emulator::runtime->match_any(mask, ::smlora::emulator::to_bits(value), where);
}
SMLORA_EMULATED unsigned __ballot_sync(unsigned mask, int predicate, SMLORA_WHERE) {
    return ::smlora::emulator::runtime->vote(::smlora::emulator::Vote::ballot, mask, predicate != 0, where);
}
SMLORA_EMULATED int __any_sync(unsigned mask, int predicate, SMLORA_WHERE) {
    return int(::smlora::emulator::runtime->vote(::smlora::emulator::Vote::any, mask, predicate != 0, where));
}
SMLORA_EMULATED int __all_sync(unsigned mask, int predicate, SMLORA_WHERE) {
    return int(::smlora::emulator::runtime->vote(::smlora::emulator::Vote::all, mask, predicate != 0, where));
}

#define SMLORA_REDUCE(function, type, kind)                                                                         \
    SMLORA_EMULATED type function(unsigned mask, type value, SMLORA_WHERE) {                                        \
        return type(::smlora::emulator::runtime->reduce(::smlora::emulator::Reduce::kind, type(-1) < type(0), mask, \
                                                        unsigned(value), where));                                   \
    }
SMLORA_REDUCE(__reduce_add_sync, int, add)
SMLORA_REDUCE(__reduce_add_sync, unsigned, add)
SMLORA_REDUCE(__reduce_min_sync, int, smallest)
SMLORA_REDUCE(__reduce_min_sync, unsigned, smallest)
SMLORA_REDUCE(__reduce_max_sync, int, largest)
SMLORA_REDUCE(__reduce_max_sync, unsigned, largest)
SMLORA_REDUCE(__reduce_and_sync, unsigned, bit_and)
SMLORA_REDUCE(__reduce_or_sync, unsigned, bit_or)
SMLORA_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef SMLORA_REDUCE

// Atomics: a thread is only ever stopped at a call or before an access, so code without hooks is atomic.
template <class T>
struct Same {  // keeps an argument's type from being deduced
    using type = T;
};
#define SMLORA_ATOMIC(function, result)                                                                      \
    template <class T>                                                                                       \
    SMLORA_EMULATED T function(T* address, typename Same<T>::type value) {                                   \
        ::smlora::emulator::runtime->preempt();                                                              \
        ::smlora::emulator::runtime->check_access(reinterpret_cast<unsigned long>(address), sizeof(T), true, \
                                                  __builtin_return_address(0));                              \
        const T old = *address;                                                                              \
        *address = (result);                                                                                 \
        return old;                                                                                          \
    }
SMLORA_ATOMIC(atomicAdd, old + value)
SMLORA_ATOMIC(atomicSub, old - value)
SMLORA_ATOMIC(atomicMin, value < old ? value : old)
SMLORA_ATOMIC(atomicMax, value > old ? value : old)
SMLORA_ATOMIC(atomicAnd, old& value)
SMLORA_ATOMIC(atomicOr, old | value)
SMLORA_ATOMIC(atomicXor, old ^ value)
SMLORA_ATOMIC(atomicExch, value)
#undef SMLORA_ATOMIC

#include "access_hooks.hpp"
#include "math.hpp"
