#include "cache/file_clock.hpp"

namespace smlora::cache {
namespace {

template <class Clock>
std::int64_t nanoseconds_of() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace

std::int64_t FileClock::now() const {
    const std::int64_t ahead = ahead_of_steady_;
    return ahead == unknown ? nanoseconds_of<std::chrono::system_clock>()
                            : nanoseconds_of<std::chrono::steady_clock>() + ahead;
}

void FileClock::learn(std::int64_t written_at) {
    ahead_of_steady_ = written_at - nanoseconds_of<std::chrono::steady_clock>();
}

}  // namespace smlora::cache
