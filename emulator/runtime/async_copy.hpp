// Work that goes on beside the threads, and the copies of cp.async.
#pragma once

#include "device/runtime.hpp"

#include <deque>

namespace smlora::emulator {

class Cluster;
class Machine;

/// Something that was issued and is not done yet.
class AsyncWork {
 public:
    /// Does a piece of it. False when nothing is left.
    virtual bool perform_one() = 0;
    bool listed = false;  ///< the scheduler's mark

 protected:
    AsyncWork() = default;
    AsyncWork(const AsyncWork&) = default;
    AsyncWork& operator=(const AsyncWork&) = default;
    ~AsyncWork() = default;
};

/// The cp.async of one thread, done in the order in which they were issued. A copy reads its source when it is done,
/// and until then its target holds no data.
class CopyQueue final : public AsyncWork {
 public:
    void issue(Machine& machine, void* target, const void* source, unsigned bytes, unsigned source_bytes);
    void commit();
    /// Does all of the oldest groups until at most `pending` are left.
    void wait(unsigned pending);
    void finish();
    /// Forgets what is left of a launch that failed.
    void clear();
    /// Arrives at a barrier when all copies issued so far are done.
    void arrive_then(Machine& machine, unsigned barrier, Where where);

    bool perform_one() override;

 private:
    enum class Kind { copy, group_end, arrive };
    struct Item {
        Kind kind;
        unsigned bytes = 0;
        unsigned source_bytes = 0;
        void* target = nullptr;
        const void* source = nullptr;
        unsigned barrier = 0;
        Where where = {};
    };

    Machine* machine_ = nullptr;
    Cluster* cluster_ = nullptr;
    std::deque<Item> items_;
    unsigned groups_ = 0;  ///< group ends in items_
};

}  // namespace smlora::emulator
