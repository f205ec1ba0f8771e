// A GPU as the tuner's device: runs the candidates of one piece of work on operands of its own.
//
// Operands come from the library's stream-ordered pool, on a stream that only this object uses, so that nothing waits
// for other streams, except for the caller's routing. At the end the memory goes back to the system. It is not used
// while the thread's stream captures. One thread uses it; now(), the find and the prepare functions may run on any.
#pragma once

#include "autotune/measured_case.hpp"
#include "autotune/measured_work.hpp"
#include "engine/cuda_call.hpp"
#include "gpu/capture_mode.hpp"
#include "gpu/event.hpp"
#include "gpu/pool.hpp"
#include "tuning/budget.hpp"
#include "tuning/device.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace smlora::autotune {

class Measurer final : public tuning::Device {
 public:
    /// In the calling thread's current context, else that of the engine's device.
    Measurer(Engine::Impl& engine, const MeasuredCase& measured);
    ~Measurer() override;

    double now() override;
    tuning::MemoryNeed memory_need() override;
    std::size_t parts() override;
    std::optional<tuning::Preparation> find(const tuning::Candidate& candidate, std::size_t part) override;
    tuning::Preparation prepare(const tuning::Candidate& candidate, std::size_t part) override;
    std::optional<tuning::Preparation> find_reference(std::size_t part) override;
    tuning::Preparation prepare_reference(std::size_t part) override;
    void allocate(int sets, std::uint64_t seed) override;
    tuning::Verification verify(const tuning::Candidate& candidate) override;
    double time(const tuning::Candidate& candidate, int set, std::size_t round) override;

 private:
    class OwnStream;

    [[nodiscard]] jit::KernelLibrary& kernels();
    /// Of a part of a candidate, whose kernel is obtained with `obtain`; nothing if that gives nothing.
    template <class Obtain>
    [[nodiscard]] std::optional<tuning::Preparation> preparation(const tuning::Candidate& candidate, std::size_t part,
                                                                 const Obtain& obtain);
    /// Nothing for a part that the reference lacks.
    [[nodiscard]] std::optional<jit::KernelSpec> reference_kernel(std::size_t part) const;
    /// Loaded, and kept for the next call.
    const plan::Plan& plan_of(const tuning::Candidate& candidate);
    /// The kernels of a candidate that the work launches.
    [[nodiscard]] plan::Plan make(const tuning::Candidate& candidate) const;
    /// With plain kernels for the roles that are not the candidate's own: their mistakes are not its own.
    [[nodiscard]] plan::Plan with_references(plan::Plan plan) const;
    [[nodiscard]] gpu::StreamBuffer& new_buffer(std::int64_t bytes);
    /// The rows of `top_idx` [T, top_k] as `route` sorts them.
    [[nodiscard]] plan::CallRows upload_routed(std::vector<std::int64_t> top_idx);
    void fill(gpu::StreamBuffer& buffer, const Operand& operand, std::size_t number);
    void poison_outputs();
    [[nodiscard]] std::vector<std::string> run_and_fetch(const plan::Plan& plan);
    void occupy(int launches);

    Engine::Impl& engine_;
    gpu::CurrentContext context_;
    gpu::RelaxedCaptureMode relaxed_;  ///< another thread may capture meanwhile; this one does not
    const tuning::Clock clock_ = tuning::steady_clock();
    MeasuredCase case_;
    std::unique_ptr<OwnStream> stream_;
    engine::CudaCall call_;
    std::unique_ptr<MeasuredWork> work_;
    std::int64_t check_T_;
    std::int64_t check_kept_ = 0;  ///< rows of the check that are not left out

    std::deque<gpu::StreamBuffer> buffers_;
    std::vector<std::vector<void*>> sets_;
    std::vector<gpu::StreamBuffer*> first_set_;                      ///< that is checked with
    std::map<std::pair<DType, bool>, gpu::StreamBuffer*> patterns_;  ///< by type and whether they are gates
    gpu::StreamBuffer* occupied_ = nullptr;
    std::vector<plan::CallRows> rows_;  ///< that rounds take in turn
    plan::CallRows check_rows_;
    plan::Plan reference_;
    std::vector<std::string> expected_;
    std::map<std::string, plan::Plan> plans_;  ///< by the candidate's name
    std::map<std::string, int> launches_;      ///< of one sample
    std::optional<gpu::EventPair> events_;
};

}  // namespace smlora::autotune
