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
    /// Nothing, with the reason in `why`, when the tuning is of no piece of work of its problem, or of no known GPU.
    [[nodiscard]] static std::optional<RecordedWork> of(const tuning::RecordName& name, const tuning::Tuning& tuning,
                                                        std::string& why);

    [[nodiscard]] const gpu::DeviceFacts& facts() const { return facts_; }
    [[nodiscard]] const tuning::SearchSpace& space() const { return space_; }

    /// The kernels that measuring the candidate times. Empty when the work never needs them.
    [[nodiscard]] std::vector<jit::KernelSpec> kernels(const tuning::Configuration& candidate) const;

 private:
    Problem problem_;
    plan::NamedWork named_;
    gpu::DeviceFacts facts_;
    tuning::SearchSpace space_;
};

struct RecordCheck {
    /// It is damaged, under another's name, or names what is no piece of work or no candidate.
    std::vector<std::string> unsound;
    /// It was measured with other templates than those of `kernels`: a miss.
    std::vector<std::string> stale;
};

/// Of a record's or bundle's file.
[[nodiscard]] RecordCheck check_file(const cache::RecordText& stored, const jit::KernelLibrary& kernels);

/// Of what was read. Each text begins with the problem and the number of tokens.
[[nodiscard]] RecordCheck check_record(const tuning::Record& record, const jit::KernelLibrary& kernels);

}  // namespace smlora::autotune
