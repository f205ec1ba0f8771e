#include "engine/scratch.hpp"

#include "check/validate.hpp"

namespace smlora::engine {

ScratchBlock::ScratchBlock(const Workspace& workspace, std::size_t needed, CUstream stream) {
    if (workspace.data != nullptr) {
        check::check_workspace(workspace, needed);
        data_ = workspace.data;
    } else if (needed > 0) {
        data_ = pool_.emplace(stream, needed).data();
    }
}

}  // namespace smlora::engine
