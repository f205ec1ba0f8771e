// The emulated GPU: its memory, and the launch that runs on it.
#pragma once

#include "runtime/cluster.hpp"
#include "runtime/kernel.hpp"
#include "runtime/memory.hpp"
#include "runtime/random.hpp"
#include "runtime/scheduler.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace smlora::emulator {

struct WgmmaShape;

/// What differs between the GPUs that can be mimicked.
struct Model {
    int major = 9;
    int minor = 0;
    const char* name = "";
    unsigned shared_bytes_per_block = 0;
    unsigned shared_bytes_per_multiprocessor = 0;
    int l2_bytes = 0;
};

/// Not thread-safe: one launch at a time, and nobody else meanwhile.
class Machine final : public Runtime {
 public:
    Machine(const Model& model, std::uint64_t seed);
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    ~Machine() = default;

    [[nodiscard]] const Model& model() const { return model_; }
    [[nodiscard]] DeviceMemory& memory() { return memory_; }
    [[nodiscard]] Scheduler& scheduler() { return scheduler_; }

    /// Runs a launch, but perhaps for its last cluster, which then runs with the next launch if that may overlap, else
    /// in finish(). Throws Failure that says what the kernel did wrong, and how to repeat it.
    void run(const Launch& launch);
    /// Runs what is left. To be called before anything else is done that the stream would wait for.
    void finish();

    /// For its lifetime, calls are made for threads of `cluster`, whoever runs: asynchronous work does so.
    class ActingFor {
     public:
        ActingFor(Machine& machine, Cluster& cluster) : machine_(machine), before_(machine.acting_for_) {
            machine.acting_for_ = &cluster;
        }
        ~ActingFor() { machine_.acting_for_ = before_; }
        ActingFor(const ActingFor&) = delete;
        ActingFor& operator=(const ActingFor&) = delete;

     private:
        Machine& machine_;
        Cluster* before_;
    };

    // For the other parts of the runtime; called by the thread that runs.

    /// `bytes` of shared memory at a 32-bit address, of any block of the cluster. Fails if they are not all in one
    /// variable or not aligned to `alignment`.
    char* shared(unsigned address, unsigned bytes, unsigned alignment, const char* what, Where where);
    /// Fails if these bytes are not in one allocation of device memory.
    void check_global(const void* pointer, std::size_t bytes, unsigned alignment, const char* what, Where where);

    [[nodiscard]] Cluster& cluster() const {
        return acting_for_ != nullptr ? *acting_for_ : scheduler_.current().block->cluster();
    }
    [[nodiscard]] SharedMemory& shared_of(unsigned address) { return cluster().shared(address >> 24); }
    /// The current thread has written there.
    void note_store(unsigned address, unsigned bytes);
    /// Of threads and of copies.
    void arrive(unsigned barrier, Where where);

    // Runtime.
    void* dynamic_shared(unsigned alignment) override;
    void* static_shared(const void* key, unsigned bytes, unsigned alignment) override;
    unsigned shared_address(const void* pointer, Where where) override;
    void* shared_pointer(unsigned address, Where where) override;
    void check_access(unsigned long address, unsigned long bytes, bool store, const void* code) override;
    void preempt() override;
    void barrier_sync(unsigned barrier, unsigned count, Where where) override;
    void barrier_arrive(unsigned barrier, unsigned count, Where where) override;
    void sync_warp(unsigned mask, Where where) override;
    unsigned long long shuffle(Shuffle kind, unsigned mask, unsigned long long bits, unsigned operand, int width,
                               Where where) override;
    unsigned match_any(unsigned mask, unsigned long long bits, Where where) override;
    unsigned vote(Vote kind, unsigned mask, bool predicate, Where where) override;
    unsigned reduce(Reduce kind, bool is_signed, unsigned mask, unsigned value, Where where) override;
    void ldmatrix(unsigned* registers, unsigned count, bool transposed, unsigned address, Where where) override;
    void mma_m16n8k16(Format format, float* d, const unsigned* a, const unsigned* b, Where where) override;
    void cp_async(unsigned target, const void* source, unsigned bytes, unsigned source_bytes, Where where) override;
    void cp_async_commit() override;
    void cp_async_wait(unsigned pending_groups, Where where) override;
    void store_shared(unsigned address, unsigned value, Where where) override;
    void stmatrix(unsigned address, const unsigned* registers, unsigned count, bool transposed, Where where) override;
    void mbarrier_init(unsigned barrier, unsigned count, Where where) override;
    void mbarrier_expect(unsigned barrier, unsigned bytes, Where where) override;
    void mbarrier_arrive(unsigned barrier, Where where) override;
    void complete_bytes(unsigned barrier, unsigned bytes, Where where) override;
    void mbarrier_wait(unsigned barrier, unsigned parity, Where where) override;
    void cp_async_arrive(unsigned barrier, Where where) override;
    void fence_proxy_async() override;
    void tma_load(unsigned target, const void* map, unsigned barrier, const int* coordinates, unsigned dimensions,
                  unsigned blocks, Where where) override;
    void wgmma(Format format, unsigned n, bool a_strided, bool b_strided, float* d, unsigned long long a,
               unsigned long long b, Where where) override;
    void wgmma_of_registers(Format format, unsigned n, bool b_strided, bool accumulate, float* d, const unsigned* a,
                            unsigned long long b, Where where) override;
    void wgmma_fence(Where where) override;
    void wgmma_commit(Where where) override;
    void wgmma_wait(unsigned pending_groups, Where where) override;
    void set_registers(bool more, unsigned count, Where where) override;
    unsigned cluster_block_rank() override;
    unsigned map_shared_rank(unsigned address, unsigned rank, Where where) override;
    void cluster_sync(Where where) override;
    void wait_for_earlier_kernels(Where where) override;
    void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier, Where where) override;
    void wait_for_flag(const unsigned* flag, Where where) override;
    void let_next_kernel_begin() override;
    long long clock() override;
    [[noreturn]] void trap(const char* what, Where where) override;

 private:
    /// A cluster that is still to be run, its launch otherwise done.
    struct Held {
        Launch launch;
        Index3 first;
    };

    [[nodiscard]] std::vector<Index3> shuffled_clusters(const Launch& launch);
    /// Runs `first` of the launch; or `held` together with several that may begin before it has ended.
    void run_clusters(const Launch& launch, const std::vector<Index3>& first, const Held* held);
    void check_waited(const Launch& launch) const;
    static void run_thread(void* thread);
    [[nodiscard]] bool shared_holds(unsigned long address, unsigned long bytes) const;
    /// What an address belongs to, in words.
    [[nodiscard]] std::string describe(unsigned long address) const;
    Mbarrier& mbarrier(unsigned address, Where where);
    void store_mbarrier(unsigned address, const Mbarrier& barrier);
    /// Ends the phase if nothing is missing.
    void update(unsigned address, Mbarrier& barrier);
    [[noreturn]] void refuse_mbarrier(unsigned address, const std::string& why, Where where);
    void require_whole_warp(const char* instruction, Where where);
    /// `a`: null if the instruction reads that operand from shared memory.
    void begin_wgmma(const WgmmaShape& shape, float* d, const unsigned* a, Where where);
    /// Meets the live lanes of the warp in an instruction that all of them execute.
    void meet_aligned(const Instruction& instruction, void* operand, Warp::Perform perform, Where where);

    Model model_;
    std::uint64_t seed_;
    std::uint64_t launches_ = 0;
    Random random_;
    Scheduler scheduler_;
    DeviceMemory memory_;
    std::vector<std::unique_ptr<Cluster>> clusters_;  ///< that run together; kept for their threads' stacks
    Cluster* acting_for_ = nullptr;
    std::optional<Held> held_;
    long long clock_ = 0;
};

}  // namespace smlora::emulator
