// Host loops on all cores.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace smlora::workload {

/// Calls work(begin, end) on parts of [0, count), on all cores when a part is worth a thread.
template <class Work>
void in_parallel(std::int64_t count, std::int64_t cost_of_one, const Work& work) {
    const std::int64_t cores = std::max<std::int64_t>(1, std::thread::hardware_concurrency());
    const std::int64_t most = std::max<std::int64_t>(1, std::min(cores, count));
    const std::int64_t parts = std::clamp<std::int64_t>(count * cost_of_one / 1'000'000, 1, most);
    std::vector<std::thread> threads;
    for (std::int64_t p = 1; p < parts; ++p) {
        threads.emplace_back([&work, p, parts, count] { work(count * p / parts, count * (p + 1) / parts); });
    }
    work(std::int64_t{0}, count / parts);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace smlora::workload
