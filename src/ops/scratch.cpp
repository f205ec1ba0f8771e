#include "ops/scratch.hpp"

#include "ops/validate.hpp"

namespace smlora::ops {

ScratchBlock::ScratchBlock(const Workspace& workspace, std::size_t needed, CUstream stream) {
    if (workspace.data != nullptr) {
        check_workspace(workspace, needed);
        data_ = workspace.data;
    } else if (needed > 0) {
        data_ = pool_.emplace(stream, needed).data();
    }
}

}  // namespace smlora::ops
