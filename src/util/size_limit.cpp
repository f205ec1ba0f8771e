#include "util/size_limit.hpp"

#include <csignal>
#include <ctime>

#include <pthread.h>
#include <unistd.h>

#include <cerrno>

namespace smlora::util {

::ssize_t write_within_limit(int descriptor, const char* bytes, std::size_t count) {
    ::sigset_t signal;
    sigemptyset(&signal);
    sigaddset(&signal, SIGXFSZ);
    ::sigset_t pending;
    ::sigset_t before;
    ::pthread_sigmask(SIG_BLOCK, &signal, &before);
    // One that waits already was not raised here and is left to its owner.
    const bool waits = ::sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 1;
    const ::ssize_t written = ::write(descriptor, bytes, count);
    const int error = errno;
    if (written < 0 && error == EFBIG && !waits) {
        const struct ::timespec at_once {};
        while (::sigtimedwait(&signal, nullptr, &at_once) < 0 && errno == EINTR) {
        }
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    return written;
}

}  // namespace smlora::util
