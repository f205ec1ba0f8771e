// How smlora-tune ends.
#pragma once

#include <stdexcept>

namespace smlora::tool {

enum class ExitCode : int {
    ok = 0,
    failure = 1,    ///< something failed, a result is out of tolerance, or results could not be written
    usage = 2,      ///< the command line asks for something that is not there or makes no sense
    needs_gpu = 3,  ///< the command needs a GPU and there is none
};

/// What the user typed is wrong; the message names the option, its value and what was expected.
class UsageError : public std::runtime_error {
 public:
    using std::runtime_error::runtime_error;
};

}  // namespace smlora::tool
