#include "runtime/scheduler.hpp"

#include "runtime/block.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace smlora::emulator {

Style Style::draw(Random& random) {
    const auto one_of = [&](std::initializer_list<unsigned> values) {
        return values.begin()[random.below(static_cast<unsigned>(values.size()))];
    };
    Style style;
    style.accesses_between_preemptions = one_of({0, 0, 8, 64, 1024});
    style.turns_between_async = one_of({0, 0, 0, 4, 64});
    style.eager_one_in = one_of({0, 0, 1, 2, 8});
    style.starve_one_in = one_of({0, 2, 4});
    style.starve_warps = one_of({1, 4});
    style.starved_first_one_in = one_of({1, 64, 0, 0});
    style.yield_one_in = one_of({0, 2, 4});
    return style;
}

void Scheduler::run(const std::vector<GpuThread*>& threads) {
    threads_ = threads;
    runnable_.clear();
    starved_.clear();
    polling_.clear();
    async_.clear();
    failure_.reset();
    running_ = threads.size();
    for (GpuThread* thread : threads) {
        thread->inside_kernel = true;
        thread->wait = {};
        wake(*thread);
    }
    current_ = nullptr;
    GpuThread* const first = take();
    current_ = first;
    *place_ = first;
    set_preemption(*first);
    Fiber::switch_to(main_, first->fiber);
    if (failure_) throw Failure(*failure_);
}

void Scheduler::list(GpuThread& thread) {
    thread.wait.instruction.name = nullptr;
    (thread.starved ? starved_ : runnable_).push_back(&thread);
}

void Scheduler::wake(GpuThread& thread) {
    idle_rounds_ = 0;
    list(thread);
}

void Scheduler::add(AsyncWork& work) {
    if (!work.listed) {
        work.listed = true;
        async_.push_back(&work);
    }
    if (random_.once_in(style_.eager_one_in) && !work.perform_one()) remove(work);
}

void Scheduler::remove(AsyncWork& work) {
    if (!work.listed) return;
    work.listed = false;
    async_.erase(std::find(async_.begin(), async_.end(), &work));
}

void Scheduler::perform_one() {
    idle_rounds_ = 0;
    AsyncWork& work = *async_[random_.below(static_cast<unsigned>(async_.size()))];
    if (!work.perform_one()) remove(work);
}

GpuThread* Scheduler::take() {
    const auto draw = [&](std::vector<GpuThread*>& from) {
        std::swap(from[random_.below(static_cast<unsigned>(from.size()))], from.back());
        GpuThread* const thread = from.back();
        from.pop_back();
        return thread;
    };
    if (!async_.empty() && random_.once_in(style_.turns_between_async)) perform_one();
    for (;;) {
        if (!runnable_.empty()) return draw(runnable_);
        if (!starved_.empty() && (async_.empty() || random_.once_in(style_.starved_first_one_in))) {
            return draw(starved_);
        }
        if (!async_.empty() && (polling_.empty() || random_.once_in(2))) {
            perform_one();
            continue;
        }
        // Only threads that ask again and again are left. They may count their questions and do something else then.
        constexpr unsigned patience = 1000;
        if (polling_.empty() || (async_.empty() && ++idle_rounds_ > patience)) return nullptr;
        for (GpuThread* thread : std::exchange(polling_, {})) list(*thread);
    }
}

void Scheduler::set_preemption(GpuThread& thread) {
    const unsigned mean = style_.accesses_between_preemptions;
    thread.until_preemption = mean == 0 ? std::numeric_limits<int>::max() : static_cast<int>(random_.below(2 * mean));
}

void Scheduler::go_to(GpuThread& next) {
    GpuThread* const from = current_;
    if (from == &next) return;
    current_ = &next;
    *place_ = &next;
    set_preemption(next);
    Fiber::switch_to(from->fiber, next.fiber);
}

void Scheduler::fail_in_deadlock() {
    leave(Failure(Failure::Kind::deadlock, "deadlock: no thread can go on\n" + waiting()));
}

void Scheduler::leave(const Failure& failure) {
    failure_.emplace(failure);
    Fiber::switch_to(current_->fiber, main_);
    std::abort();  // nobody comes back to a thread that failed
}

void Scheduler::wait(Wait wait) {
    current_->wait = std::move(wait);
    GpuThread* const next = take();
    if (next == nullptr) fail_in_deadlock();
    go_to(*next);
}

void Scheduler::wait_for_change(Wait wait) {
    current_->wait = std::move(wait);
    polling_.push_back(current_);
    GpuThread* const next = take();
    if (next == nullptr) fail_in_deadlock();
    go_to(*next);
}

void Scheduler::yield() {
    list(*current_);
    go_to(*take());
}

void Scheduler::preempt() {
    set_preemption(*current_);
    if (style_.accesses_between_preemptions != 0) yield();
}

void Scheduler::end() {
    current_->inside_kernel = false;
    if (--running_ == 0) {
        while (!async_.empty()) perform_one();
        Fiber::switch_to(current_->fiber, main_);
        return;
    }
    GpuThread* const next = take();
    if (next == nullptr) fail_in_deadlock();
    go_to(*next);
}

void Scheduler::fail(const std::string& what, Failure::Kind kind) {
    leave(Failure(kind, fmt::format("thread {} of block {}: {}", current_->number, current_->block->name(), what)));
}

std::string Scheduler::waiting() const {
    // Threads that wait for the same thing at the same place, in one line.
    std::map<std::string, std::vector<const GpuThread*>> groups;
    for (const GpuThread* thread : threads_) {
        if (!thread->inside_kernel) {
            groups[fmt::format("block {}: ended", thread->block->name())].push_back(thread);
        } else if (const Wait& wait = thread->wait; wait.instruction.name != nullptr) {
            groups[fmt::format("block {}: {}{} at {}:{}", thread->block->name(), text(wait.instruction), wait.detail,
                               wait.where.file, wait.where.line)]
                .push_back(thread);
        }
    }
    std::string text;
    for (const auto& [what, threads] : groups) {
        std::string numbers;
        for (std::size_t i = 0; i < threads.size();) {
            std::size_t last = i;
            while (last + 1 < threads.size() && threads[last + 1]->number == threads[last]->number + 1) ++last;
            numbers += fmt::format("{}{}", numbers.empty() ? "" : ", ", threads[i]->number);
            if (last > i) numbers += fmt::format("-{}", threads[last]->number);
            i = last + 1;
        }
        text += fmt::format("  {} (threads {})\n", what, numbers);
    }
    return text;
}

}  // namespace smlora::emulator
