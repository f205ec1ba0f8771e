#include "tuning/journal.hpp"

#include "tuning/choice.hpp"

namespace smlora::tuning {
namespace {

// Nothing that took longer than this to find out is lost when the process ends.
constexpr double save_interval = 0.25;

}  // namespace

Journal::Journal(Device& device, Tuning& tuning, const Observer& observer)
    : device_(device),
      tuning_(tuning),
      observer_(observer),
      start_(device.now()),
      earlier_seconds_(tuning.seconds),
      saved_(start_) {}

void Journal::report(std::string_view phase, std::size_t done, std::size_t total) {
    if (!observer_.progress) return;
    Progress progress{tuning_.slot, phase, done, total, {}, 0};
    const std::vector<Estimate> times = estimates(tuning_.trials);
    for (std::size_t i = 0; i < times.size(); ++i) {
        if (times[i].samples == 0 || (!progress.best.empty() && times[i].seconds >= progress.best_seconds)) continue;
        progress.best = tuning_.trials[i].candidate.name;
        progress.best_seconds = times[i].seconds;
    }
    observer_.progress(progress);
}

void Journal::save() {
    tuning_.seconds = earlier_seconds_ + device_.now() - start_;
    tuning_.complete = complete_;
    if (complete_) condense(tuning_.trials);
    const Judgement judgement = judge(tuning_.trials);
    tuning_.choice.reset();
    if (judgement.winner) tuning_.choice = tuning_.trials[*judgement.winner].candidate.configuration;
    if (observer_.save) observer_.save(tuning_);
    saved_ = device_.now();
}

void Journal::save_now_and_then() {
    if (device_.now() - saved_ >= save_interval) save();
}

}  // namespace smlora::tuning
