// Bulk copies of boxes of tensors.
#pragma once

#include "device/runtime.hpp"
#include "runtime/async_copy.hpp"
#include "runtime/tensor_map.hpp"

#include <array>

namespace smlora::emulator {

class Cluster;

/// One box on its way into one block, a few rows at a time; each counts at the barrier when it is there.
class TmaCopy final : public AsyncWork {
 public:
    TmaCopy(Machine& machine, Cluster& cluster, const TensorMap& map, const std::array<int, most_dimensions>& corner,
            unsigned target, unsigned barrier, Where where);

    bool perform_one() override;
    [[nodiscard]] unsigned bytes() const { return rows_ * row_bytes_; }

 private:
    void copy_row(unsigned row);

    Machine& machine_;
    Cluster& cluster_;
    TensorMap map_;
    std::array<int, most_dimensions> corner_;
    unsigned target_;
    unsigned barrier_;
    Where where_;
    unsigned row_bytes_;
    unsigned rows_ = 1;
    unsigned next_row_ = 0;
};

}  // namespace smlora::emulator
