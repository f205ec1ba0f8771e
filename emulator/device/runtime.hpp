// What a compiled kernel calls: the interface between the shared objects that the NVRTC stand-in makes and the runtime
// in the libcuda stand-in. Included by both sides; by kernels before anything else, so it includes nothing itself.
#pragma once

namespace smlora::emulator {

struct Index3 {
    unsigned x, y, z;
};

/// A line of a kernel's source; as a default argument, the caller's.
struct Where {
    const char* file = "";
    int line = 0;

    static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

/// Bytes of a block's window of shared memory; as far as matrix descriptors reach.
constexpr unsigned long shared_window_bytes = 256 * 1024;

/// The last store to 16 bytes of shared memory: when, by Runtime::now, and by which thread of the block. Time 0: none,
/// or a bulk copy.
struct SharedStore {
    unsigned time;
    unsigned thread;
};

/// What kernels read of the thread that runs, without a call.
struct Thread {
    Index3 thread_idx, block_idx, block_dim, grid_dim;
    unsigned long stack_low, stack_bytes;  ///< its local memory
    unsigned long shared_window;           ///< where its block's shared memory begins
    const unsigned char* shared_usable;    ///< a bit for each byte of the window: whether it belongs to a variable
    SharedStore* shared_stores;            ///< one for each 16 bytes of the window
    unsigned number;                       ///< in its block
    int until_preemption;                  ///< memory accesses before another thread may get its turn
};

enum class Format { bf16, fp16 };
enum class Shuffle { index, up, down, exclusive_or };
enum class Vote { ballot, any, all };
enum class Reduce { add, smallest, largest, bit_and, bit_or, bit_xor };

/// All functions are called by the thread that runs, `current`. Shared-memory addresses are those of the hardware: 32
/// bits, the block's offset in its window and its rank in the cluster above. A misuse ends the launch with a report.
class Runtime {
 public:
    Thread* current = nullptr;
    /// Counts the fences that show stores to the asynchronous proxy.
    unsigned now = 1;

    // Memory. `key` tells the static shared variables of a kernel apart.
    virtual void* dynamic_shared(unsigned alignment) = 0;
    virtual void* static_shared(const void* key, unsigned bytes, unsigned alignment) = 0;
    virtual unsigned shared_address(const void* pointer, Where) = 0;
    virtual void* shared_pointer(unsigned address, Where) = 0;
    virtual void check_access(unsigned long address, unsigned long bytes, bool store, const void* code) = 0;
    virtual void preempt() = 0;

    // Barriers. barrier 0 of all threads: count 0.
    virtual void barrier_sync(unsigned barrier, unsigned count, Where) = 0;
    virtual void barrier_arrive(unsigned barrier, unsigned count, Where) = 0;

    // Warps.
    virtual void sync_warp(unsigned mask, Where) = 0;
    virtual unsigned long long shuffle(Shuffle, unsigned mask, unsigned long long bits, unsigned operand, int width,
                                       Where) = 0;
    virtual unsigned match_any(unsigned mask, unsigned long long bits, Where) = 0;
    virtual unsigned vote(Vote, unsigned mask, bool predicate, Where) = 0;
    virtual unsigned reduce(Reduce, bool is_signed, unsigned mask, unsigned value, Where) = 0;
    virtual void ldmatrix(unsigned* registers, unsigned count, bool transposed, unsigned address, Where) = 0;
    virtual void mma_m16n8k16(Format, float* d, const unsigned* a, const unsigned* b, Where) = 0;

    // cp.async.
    virtual void cp_async(unsigned target, const void* source, unsigned bytes, unsigned source_bytes, Where) = 0;
    virtual void cp_async_commit() = 0;
    virtual void cp_async_wait(unsigned pending_groups, Where) = 0;

    // Shared memory of sm_90.
    virtual void store_shared(unsigned address, unsigned value, Where) = 0;
    virtual void stmatrix(unsigned address, const unsigned* registers, unsigned count, bool transposed, Where) = 0;
    virtual void mbarrier_init(unsigned barrier, unsigned count, Where) = 0;
    virtual void mbarrier_expect(unsigned barrier, unsigned bytes, Where) = 0;
    virtual void mbarrier_arrive(unsigned barrier, Where) = 0;
    /// `bytes` of those expected have arrived.
    virtual void complete_bytes(unsigned barrier, unsigned bytes, Where) = 0;
    virtual void mbarrier_wait(unsigned barrier, unsigned parity, Where) = 0;
    virtual void cp_async_arrive(unsigned barrier, Where) = 0;
    virtual void fence_proxy_async() = 0;
    /// `map` is what cuTensorMapEncodeTiled wrote; `blocks`: a bit for each block of the cluster, 0: the thread's own.
    virtual void tma_load(unsigned target, const void* map, unsigned barrier, const int* coordinates,
                          unsigned dimensions, unsigned blocks, Where) = 0;

    /// `bytes` from `source` on, both addresses and the size multiples of 16.
    virtual void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier, Where) = 0;

    // wgmma. d has n / 2 elements and is the tensor cores' until the wait.
    virtual void wgmma(Format, unsigned n, bool a_strided, bool b_strided, float* d, unsigned long long a,
                       unsigned long long b, Where) = 0;
    /// a: the thread's four registers, which are the tensor cores' until the wait, too. accumulate: else d begins at 0.
    virtual void wgmma_of_registers(Format, unsigned n, bool b_strided, bool accumulate, float* d, const unsigned* a,
                                    unsigned long long b, Where) = 0;
    virtual void wgmma_fence(Where) = 0;
    virtual void wgmma_commit(Where) = 0;
    virtual void wgmma_wait(unsigned pending_groups, Where) = 0;
    virtual void set_registers(bool more, unsigned count, Where) = 0;

    // Clusters and grids.
    virtual unsigned cluster_block_rank() = 0;
    /// The same address in block `rank` of the cluster.
    virtual unsigned map_shared_rank(unsigned address, unsigned rank, Where) = 0;
    virtual void cluster_sync(Where) = 0;
    virtual void wait_for_earlier_kernels(Where) = 0;
    virtual void let_next_kernel_begin() = 0;
    /// A flag in global memory, not 0 when set.
    virtual void wait_for_flag(const unsigned* flag, Where) = 0;

    virtual long long clock() = 0;
    [[noreturn]] virtual void trap(const char* what, Where) = 0;

 protected:
    ~Runtime() = default;
};

}  // namespace smlora::emulator
