#include "tuning/candidate.hpp"

#include <algorithm>

namespace smlora::tuning {
namespace {

// What is predicted to take longer than this times the best is not tried. Predictions of one product against another
// have been off by up to 1.6, those of rank rows by up to 2.1, but of the fastest by 1.2 at most.
constexpr double hopeless = 2;

bool faster(const Candidate& a, const Candidate& b) { return a.predicted_seconds < b.predicted_seconds; }

}  // namespace

std::optional<std::size_t> heuristic_choice(const SearchSpace& space) {
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < space.size(); ++i) {
        if (space[i].legal() && (!best || faster(space[i], space[*best]))) best = i;
    }
    return best;
}

std::vector<Candidate> legal(const SearchSpace& space) {
    std::vector<Candidate> found;
    std::copy_if(space.begin(), space.end(), std::back_inserter(found), [](const Candidate& c) { return c.legal(); });
    std::stable_sort(found.begin(), found.end(), faster);
    return found;
}

std::vector<Candidate> shortlist(const SearchSpace& space, std::size_t count) {
    std::vector<Candidate> best = legal(space);
    if (best.size() > count) best.resize(count);
    if (best.empty()) return best;
    const double limit = hopeless * best.front().predicted_seconds;
    std::erase_if(best, [&](const Candidate& candidate) { return candidate.predicted_seconds > limit; });
    return best;
}

const Candidate* find_legal(const SearchSpace& space, const Configuration& configuration) {
    const auto found = std::find_if(space.begin(), space.end(), [&](const Candidate& candidate) {
        return candidate.legal() && candidate.configuration == configuration;
    });
    return found == space.end() ? nullptr : &*found;
}

}  // namespace smlora::tuning
