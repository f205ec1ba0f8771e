// Writing where the process may be limited in the size of its files (RLIMIT_FSIZE, `ulimit -f`).
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace smlora::util {

/// write(2) that answers EFBIG beyond the limit, as a full disk is answered, instead of ending the process by SIGXFSZ.
/// What the process has set for that signal is not changed and not run.
[[nodiscard]] ::ssize_t write_within_limit(int descriptor, const char* bytes, std::size_t count);

}  // namespace smlora::util
