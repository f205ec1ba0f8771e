// One thread of the emulated GPU.
#pragma once

#include "device/runtime.hpp"
#include "runtime/async_copy.hpp"
#include "runtime/fiber.hpp"
#include "runtime/instruction.hpp"

#include <string>

namespace smlora::emulator {

class Block;
class Machine;
class Warp;

/// What a thread waits for.
struct Wait {
    Instruction instruction;
    std::string detail;
    Where where;
};

struct GpuThread : Thread {
    explicit GpuThread(std::size_t stack) : fiber(stack) {
        stack_low = reinterpret_cast<unsigned long>(fiber.stack());
        stack_bytes = fiber.stack_bytes();
    }

    Fiber fiber;
    Machine* machine = nullptr;  ///< null before it has run anything
    Block* block = nullptr;
    Warp* warp = nullptr;
    unsigned lane = 0;
    bool inside_kernel = false;  ///< false once it has ended
    bool starved = false;        ///< runs only when nobody else can
    unsigned fenced = 0;         ///< when it last showed its stores to the asynchronous proxy, by Runtime::now
    Wait wait;
    CopyQueue copies;
};

}  // namespace smlora::emulator
