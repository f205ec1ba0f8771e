// Whether a tuning record could be used as it is: what the project checks of the records that it ships.
#pragma once

#include "cache/layer.hpp"
#include "gpu/device.hpp"
#include "jit/kernel_library.hpp"
#include "plan/search_space.hpp"
#include "tuning/record.hpp"

#include <smlora/problem.hpp>

#include <optional>
#include <string>
#include <vector>

namespace smlora::autotune {

/// The inverse of to_string(Problem); nothing for a text that is none.
[[nodiscard]] std::optional<Problem> problem_from_text(const std::string& text);

/// A tuning on the GPU that it was made on: what its candidates are made of.
class RecordedWork {
 public:
    /// Nothing, with the reason in `why`, when its problem has no such piece of work, or the GPU is not known.
    [[nodiscard]] static std::optional<RecordedWork> of(const tuning::RecordName& name, const tuning::Tuning& tuning,
                                                        std::string& why);

    [[nodiscard]] const gpu::DeviceFacts& facts() const { return facts_; }
    [[nodiscard]] const tuning::SearchSpace& space() const { return space_; }

    /// The kernels that are timed for the candidate. Empty when the work never needs them.
    [[nodiscard]] std::vector<jit::KernelSpec> kernels(const tuning::Configuration& candidate) const;

 private:
    Problem problem_;
    plan::NamedWork named_;
    gpu::DeviceFacts facts_;
    tuning::SearchSpace space_;
};

struct RecordCheck {
    /// Damaged, under another record's name, or of something that is no piece of work or no candidate.
    std::vector<std::string> unsound;
    /// Measured with other templates than those of `kernels`, so that it is not used.
    std::vector<std::string> stale;
};

/// Of the file of a record or bundle.
[[nodiscard]] RecordCheck check_file(const cache::RecordText& stored, const jit::KernelLibrary& kernels);

/// Of a record that was read. Each text begins with the problem and the number of tokens.
[[nodiscard]] RecordCheck check_record(const tuning::Record& record, const jit::KernelLibrary& kernels);

}  // namespace smlora::autotune
