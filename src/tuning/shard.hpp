// Dividing the tuning of many problems among processes that do not talk to each other.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace smlora::tuning {

struct Shard {
    int index = 0;  ///< 0 .. count - 1
    int count = 1;

    /// Whether the piece of work of this key (hexadecimal digits, a hash) belongs to this shard. Every key belongs to
    /// exactly one shard of `count`, whatever is already tuned: processes that look at different moments agree.
    [[nodiscard]] bool owns(std::string_view key) const;

    friend bool operator==(const Shard&, const Shard&) = default;
};

/// "i/n" with 0 <= i < n. Throws Error{invalid_argument}.
[[nodiscard]] Shard parse_shard(const std::string& text);

/// The place of this process in a job.
struct Rank {
    Shard shard;
    int local = 0;         ///< among the processes of its machine: which GPU is its own
    int local_count = 1;   ///< processes of its machine; all of the job where the launcher does not say
    std::string launcher;  ///< "torchrun", "SLURM", "Open MPI", "MPICH"
};

/// From the variables that launchers set: RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE (torchrun),
/// OMPI_COMM_WORLD_RANK, .._SIZE, .._LOCAL_RANK and .._LOCAL_SIZE (Open MPI), PMI_RANK, PMI_SIZE, MPI_LOCALRANKID and
/// MPI_LOCALNRANKS (MPICH, Intel MPI), SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID and SLURM_STEP_TASKS_PER_NODE
/// (srun); of the first launcher of these that started this process. Nothing without one. Throws
/// Error{invalid_argument} when its variables make no sense: without a rank every process would do everything.
[[nodiscard]] std::optional<Rank> rank_from_environment();

}  // namespace smlora::tuning
