// Which process an object was made in: a forked child has the memory of its parent, and none of its threads.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace smlora::util {

/// The process that made it.
class Origin {
 public:
    Origin();
    /// False in every process that was forked from it, or from a child of it. Costs a load.
    [[nodiscard]] bool is_this_process() const noexcept;
    [[nodiscard]] ::pid_t pid() const noexcept { return pid_; }

 private:
    ::pid_t pid_;
    std::uint64_t forks_;
};

}  // namespace smlora::util
