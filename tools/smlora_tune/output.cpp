#include "smlora_tune/output.hpp"

#include <smlora/error.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace smlora::tool {
namespace {

bool stdout_was_closed = false;

[[noreturn]] void fail(int error) {
    throw Error(ErrorCode::io,
                fmt::format("stdout: the results cannot be written: {}",
                            stdout_was_closed ? "it is closed" : std::generic_category().message(error)));
}

}  // namespace

void occupy_closed_streams() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(stream, F_GETFD) != -1 || errno != EBADF) continue;
        if (stream == STDOUT_FILENO) stdout_was_closed = true;
        // The lowest number that is free is this one. Opened the wrong way round, so that using it fails.
        static_cast<void>(::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY));
    }
}

void write_results(std::string_view text) {
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail(errno);
}

void finish_results() {
    errno = 0;
    // An earlier write may have failed with its error number long gone.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) fail(errno != 0 ? errno : EIO);
    // Some file systems, NFS among them, tell of a full disk only now. The file stays open for this process.
    const int copy = ::dup(STDOUT_FILENO);
    if (copy != -1 && ::close(copy) != 0) fail(errno);
}

void write_remark(std::FILE* stream, std::string_view text) noexcept {
    static_cast<void>(std::fwrite(text.data(), 1, text.size(), stream));
    static_cast<void>(std::fflush(stream));
}

}  // namespace smlora::tool
