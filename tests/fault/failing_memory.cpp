#include "fault/failing_memory.hpp"

#include <cstdlib>
#include <new>

namespace smlora::testing {

thread_local Memory memory;

namespace {

bool fails(std::size_t bytes) {
    if (bytes < Memory::small_bytes || memory.left < 0) return false;
    if (memory.left > 0 || !memory.lasting) return memory.left-- == 0;
    return true;
}

}  // namespace
}  // namespace smlora::testing

void* operator new(std::size_t bytes) {
    if (smlora::testing::fails(bytes)) throw std::bad_alloc();
    if (void* const allocated = std::malloc(bytes == 0 ? 1 : bytes)) return allocated;
    throw std::bad_alloc();
}

// Also the one without exceptions: a sanitizer has its own, whose memory std::free must not be given.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    return smlora::testing::fails(bytes) ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
