#include "runtime/fiber.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

namespace smlora::emulator {
namespace {

std::size_t page_bytes() {
    static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

}  // namespace

Fiber::Fiber(std::size_t bytes) : bytes_(bytes) {
    memory_ =
        mmap(nullptr, bytes + page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory_, page_bytes(), PROT_NONE);
    stack_ = static_cast<char*>(memory_) + page_bytes();
}

Fiber::~Fiber() {
    if (memory_ != nullptr) munmap(memory_, bytes_ + page_bytes());
}

void Fiber::prepare(void (*entry)(void*), void* argument) {
    entry_ = entry;
    argument_ = argument;
    getcontext(&first_);
    first_.uc_stack.ss_sp = stack_;
    first_.uc_stack.ss_size = bytes_;
    first_.uc_link = nullptr;
    // makecontext passes ints.
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    makecontext(&first_, reinterpret_cast<void (*)()>(start), 2, static_cast<unsigned>(self),
                static_cast<unsigned>(self >> 32));
    fresh_ = true;
}

void Fiber::start(unsigned low, unsigned high) {
    const auto* self = reinterpret_cast<const Fiber*>(std::uintptr_t{low} | std::uintptr_t{high} << 32);
    self->entry_(self->argument_);
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
    if (_setjmp(from.here_) != 0) return;
    if (to.fresh_) {
        to.fresh_ = false;
        setcontext(&to.first_);
    }
    _longjmp(to.here_, 1);
}

}  // namespace smlora::emulator
