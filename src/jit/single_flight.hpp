// Of several threads that need the same result at once, one works for all.
#pragma once

#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace smlora::jit {

/// A flight ends with its result or its exception, which every caller that waited for it gets; then it is forgotten, so
/// that the next call tries again after a failure. `work` must not call run() for the same key.
template <class Result>
class SingleFlight {
 public:
    using Shared = std::shared_ptr<const Result>;

    Shared run(const std::string& key, const std::function<Shared()>& work) {
        std::promise<Shared> promise;
        {
            std::unique_lock lock(mutex_);
            const auto [flight, first] = flights_.try_emplace(key);
            if (!first) {
                const std::shared_future<Shared> other = flight->second;
                lock.unlock();
                return other.get();
            }
            flight->second = promise.get_future().share();
        }
        try {
            Shared result = work();
            forget(key);
            promise.set_value(result);
            return result;
        } catch (...) {
            forget(key);
            promise.set_exception(std::current_exception());
            throw;
        }
    }

 private:
    // Before the promise is kept: a caller after a failure must not find it.
    void forget(const std::string& key) {
        const std::lock_guard lock(mutex_);
        flights_.erase(key);
    }

    std::mutex mutex_;
    std::map<std::string, std::shared_future<Shared>> flights_;
};

}  // namespace smlora::jit
