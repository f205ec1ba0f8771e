// A stack that runs a function and can be left and entered again.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

namespace smlora::emulator {

/// Made by makecontext; then switched with _setjmp and _longjmp, which, unlike swapcontext, make no system call.
class Fiber {
 public:
    /// The thread's own stack, to switch away from and back to.
    Fiber() = default;
    /// A stack of `bytes`, above a page that faults.
    explicit Fiber(std::size_t bytes);
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    /// The next switch to this fiber calls entry(argument), whatever it did before. `entry` must not return.
    void prepare(void (*entry)(void*), void* argument);

    /// Leaves `from`, which runs, for `to`; returns when somebody switches back.
    static void switch_to(Fiber& from, Fiber& to);

    [[nodiscard]] const void* stack() const { return stack_; }
    [[nodiscard]] std::size_t stack_bytes() const { return bytes_; }

 private:
    static void start(unsigned low, unsigned high);

    void* memory_ = nullptr;
    void* stack_ = nullptr;
    std::size_t bytes_ = 0;
    void (*entry_)(void*) = nullptr;
    void* argument_ = nullptr;
    bool fresh_ = false;
    ucontext_t first_{};
    jmp_buf here_{};
};

}  // namespace smlora::emulator
