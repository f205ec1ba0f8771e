// Dividing the tuning of many problems among processes that do not talk to each other.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace smlora::tune {

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
    std::string launcher;  ///< "torchrun", "SLURM", "Open MPI", "MPICH"
};

/// From the variables that launchers set: RANK, WORLD_SIZE and LOCAL_RANK (torchrun), OMPI_COMM_WORLD_RANK, .._SIZE and
/// .._LOCAL_RANK (Open MPI), PMI_RANK, PMI_SIZE and MPI_LOCALRANKID (MPICH, Intel MPI), SLURM_PROCID, SLURM_NTASKS and
/// SLURM_LOCALID (srun); the first launcher of these whose variables make sense. Nothing without one.
[[nodiscard]] std::optional<Rank> rank_from_environment();

}  // namespace smlora::tune
