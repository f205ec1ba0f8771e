// Who runs next: the threads of a cluster, and the copies and products that run beside them.
#pragma once

#include "runtime/gpu_thread.hpp"
#include "runtime/random.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace smlora::emulator {

/// Ends a launch; what() says which thread did what.
class Failure : public std::runtime_error {
 public:
    enum class Kind { misuse, address, deadlock };
    Failure(Kind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
    [[nodiscard]] Kind kind() const { return kind_; }

 private:
    Kind kind_;
};

/// How unkind a run is. Drawn anew for each cluster, as no single order finds every error.
struct Style {
    unsigned accesses_between_preemptions = 0;  ///< about; 0: threads are stopped only where they wait
    unsigned turns_between_async = 0;   ///< about, of asynchronous work; 0: only when there is nothing else to do
    unsigned eager_one_in = 0;          ///< asynchronous work done as soon as it is issued; 0: never
    unsigned starve_one_in = 0;         ///< sets of warps that only run when no other can; 0: none
    unsigned starve_warps = 1;          ///< consecutive warps of a set
    unsigned starved_first_one_in = 1;  ///< of their turns, before asynchronous work is done; 0: none
    unsigned yield_one_in = 0;          ///< threads that let others run where they need not; 0: none

    static Style draw(Random& random);
};

class Scheduler {
 public:
    explicit Scheduler(Random& random) : random_(random) {}
    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;

    [[nodiscard]] Random& random() { return random_; }
    [[nodiscard]] const Style& style() const { return style_; }
    void set_style(const Style& style) { style_ = style; }
    /// Where a thread's `current` is to be found by the kernel.
    void publish_current_in(Thread** place) { place_ = place; }

    /// Runs `threads`, prepared to call their kernel, until all have ended. Throws Failure, after which those that have
    /// not ended are lost and must be prepared anew.
    void run(const std::vector<GpuThread*>& threads);

    [[nodiscard]] GpuThread& current() const { return *current_; }

    // Called by the thread that runs.

    /// Returns when somebody has called wake() for this thread.
    void wait(Wait wait);
    void wake(GpuThread& thread);
    /// Lets others run; `yield_sometimes` as the style says.
    void yield();
    void yield_sometimes() {
        if (random_.once_in(style_.yield_one_in)) yield();
    }
    /// Like wait(), for a thread that asks again and again: also returns when anything has happened elsewhere.
    void wait_for_change(Wait wait);
    /// Ends this thread's part of the kernel; returns when it is to run a kernel again.
    void end();
    /// Before another access.
    void preempt();
    [[noreturn]] void fail(const std::string& what, Failure::Kind kind = Failure::Kind::misuse);

    /// Work was issued: it is done soon or late, before or after other work, at the latest when nothing else can run.
    void add(AsyncWork& work);
    /// It is known to be all done.
    void remove(AsyncWork& work);

    /// Who waits where.
    [[nodiscard]] std::string waiting() const;

 private:
    /// The next to run; null if nobody can.
    GpuThread* take();
    void list(GpuThread& thread);
    void perform_one();
    void set_preemption(GpuThread& thread);
    void go_to(GpuThread& next);
    [[noreturn]] void leave(const Failure& failure);
    [[noreturn]] void fail_in_deadlock();

    Random& random_;
    Style style_;
    Thread** place_ = nullptr;
    Fiber main_;
    std::vector<GpuThread*> threads_;
    std::vector<GpuThread*> runnable_;
    std::vector<GpuThread*> starved_;  ///< runnable, but after the others
    std::vector<GpuThread*> polling_;
    std::vector<AsyncWork*> async_;
    GpuThread* current_ = nullptr;
    std::size_t running_ = 0;   ///< threads that have not ended
    unsigned idle_rounds_ = 0;  ///< of questions in which nothing has happened
    std::optional<Failure> failure_;
};

}  // namespace smlora::emulator
