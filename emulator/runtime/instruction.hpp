// Naming what threads execute.
#pragma once

#include "device/runtime.hpp"

#include <string>

namespace smlora::emulator {

struct Instruction {
    const char* name = nullptr;
    /// All lanes of a warp must execute the very same one, not just one of the same name.
    bool aligned = false;
    /// What it works on, and how many threads that is for; -1 and 0 if it has none.
    long barrier = -1;
    unsigned count = 0;

    friend bool operator==(const Instruction& a, const Instruction& b) {
        return std::string_view(a.name) == b.name && a.barrier == b.barrier && a.count == b.count;
    }
};

inline std::string text(const Instruction& instruction) {
    std::string text = instruction.name;
    if (instruction.barrier >= 0) text += " " + std::to_string(instruction.barrier);
    if (instruction.count > 0) text += ", " + std::to_string(instruction.count);
    return text;
}

}  // namespace smlora::emulator
