// Matrix instructions of a warp: ldmatrix, stmatrix and mma.sync. Fragments as in the PTX ISA, "Matrix fragments for
// mma.m16n8k16" and "Warp-level matrix load".
#include "runtime/format.hpp"
#include "runtime/machine.hpp"

#include <cstring>

namespace smlora::emulator {
namespace {

struct LoadOperand {
    Machine* machine;
    unsigned* registers;
    unsigned count;
    bool transposed;
    unsigned address;
    Where where;
};

/// Lane l has elements 2 (l % 4) and the one after of row l / 4; of a transposed matrix, of column l / 4.
GoOn load(Warp&, const Operands& operands) {
    const auto* const any = static_cast<const LoadOperand*>(operands[0]);
    for (unsigned matrix = 0; matrix < any->count; ++matrix) {
        std::uint16_t element[8][8];
        for (unsigned row = 0; row < 8; ++row) {
            const auto* const operand = static_cast<const LoadOperand*>(operands[matrix * 8 + row]);
            std::memcpy(element[row], any->machine->shared(operand->address, 16, 16, "ldmatrix", operand->where), 16);
        }
        for (unsigned lane = 0; lane < 32; ++lane) {
            const unsigned row = lane / 4;
            const unsigned column = lane % 4 * 2;
            const std::uint16_t low = any->transposed ? element[column][row] : element[row][column];
            const std::uint16_t high = any->transposed ? element[column + 1][row] : element[row][column + 1];
            static_cast<const LoadOperand*>(operands[lane])->registers[matrix] = low | std::uint32_t{high} << 16;
        }
    }
    return GoOn::all;
}

struct StoreOperand {
    Machine* machine;
    const unsigned* registers;
    unsigned count;
    bool transposed;
    unsigned address;
    Where where;
};

GoOn store(Warp&, const Operands& operands) {
    const auto* const any = static_cast<const StoreOperand*>(operands[0]);
    for (unsigned matrix = 0; matrix < any->count; ++matrix) {
        std::uint16_t element[8][8];
        for (unsigned lane = 0; lane < 32; ++lane) {
            const std::uint32_t bits = static_cast<const StoreOperand*>(operands[lane])->registers[matrix];
            const unsigned row = lane / 4;
            const unsigned column = lane % 4 * 2;
            (any->transposed ? element[column][row] : element[row][column]) = static_cast<std::uint16_t>(bits);
            (any->transposed ? element[column + 1][row] : element[row][column + 1]) =
                static_cast<std::uint16_t>(bits >> 16);
        }
        for (unsigned row = 0; row < 8; ++row) {
            const auto* const operand = static_cast<const StoreOperand*>(operands[matrix * 8 + row]);
            std::memcpy(any->machine->shared(operand->address, 16, 16, "stmatrix", operand->where), element[row], 16);
        }
    }
    return GoOn::all;
}

struct MmaOperand {
    Format format;
    float* d;
    const unsigned* a;
    const unsigned* b;
};

std::uint16_t half(unsigned bits, unsigned index) { return static_cast<std::uint16_t>(bits >> (16 * index)); }

GoOn multiply(Warp&, const Operands& operands) {
    float a[16][16];
    float b[16][8];
    const Format format = static_cast<const MmaOperand*>(operands[0])->format;
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto& operand = *static_cast<const MmaOperand*>(operands[lane]);
        const unsigned group = lane / 4;
        const unsigned in_group = lane % 4;
        for (unsigned i = 0; i < 2; ++i) {
            for (unsigned r = 0; r < 4; ++r) {
                a[group + r % 2 * 8][in_group * 2 + i + r / 2 * 8] = float_of(format, half(operand.a[r], i));
            }
            for (unsigned r = 0; r < 2; ++r) {
                b[in_group * 2 + i + r * 8][group] = float_of(format, half(operand.b[r], i));
            }
        }
    }
    float product[16][8] = {};
    for (unsigned m = 0; m < 16; ++m) {
        for (unsigned k = 0; k < 16; ++k) {
            for (unsigned n = 0; n < 8; ++n) product[m][n] += a[m][k] * b[k][n];
        }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        float* const d = static_cast<const MmaOperand*>(operands[lane])->d;
        for (unsigned r = 0; r < 4; ++r) d[r] += product[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
    }
    return GoOn::all;
}

}  // namespace

void Machine::ldmatrix(unsigned* registers, unsigned count, bool transposed, unsigned address, Where where) {
    LoadOperand operand{this, registers, count, transposed, address, where};
    require_whole_warp("ldmatrix", where);
    meet_aligned({transposed ? "ldmatrix.trans" : "ldmatrix", true}, &operand, load, where);
}

void Machine::stmatrix(unsigned address, const unsigned* registers, unsigned count, bool transposed, Where where) {
    StoreOperand operand{this, registers, count, transposed, address, where};
    require_whole_warp("stmatrix", where);
    meet_aligned({transposed ? "stmatrix.trans" : "stmatrix", true}, &operand, store, where);
    if (scheduler_.current().lane < count * 8) note_store(address, 16);
}

void Machine::store_shared(unsigned address, unsigned value, Where where) {
    std::memcpy(shared(address, 4, 4, "st.shared", where), &value, 4);
    note_store(address, 4);
}

void Machine::mma_m16n8k16(Format format, float* d, const unsigned* a, const unsigned* b, Where where) {
    MmaOperand operand{format, d, a, b};
    require_whole_warp("mma.sync", where);
    meet_aligned({"mma.sync", true}, &operand, multiply, where);
}

}  // namespace smlora::emulator
