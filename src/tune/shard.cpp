#include "tune/shard.hpp"

#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

namespace smlora::tune {
namespace {

struct Launcher {
    const char* name;
    const char* index;
    const char* count;
    const char* local;
    const char* local_count;
    bool needs_local = false;
};

// mpirun and torchrun inside of a SLURM allocation start more processes than srun knows of: SLURM comes last. What it
// has in common with MPICH is the interface behind MPICH's first two variables, but not the third. The script of
// sbatch, which runs once, has SLURM_NTASKS as well, but is no step of its job's.
constexpr std::array launchers{
    Launcher{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    Launcher{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Launcher{"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", true},
    Launcher{"SLURM", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
};

std::optional<int> number(std::string_view text) {
    int value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

std::optional<int> number_from(const char* variable) {
    const auto value = util::environment(variable);
    return value ? number(*value) : std::nullopt;
}

/// SLURM's is "8(x4),2": of four machines with eight and one with two.
std::optional<int> first_number_from(const char* variable) {
    const auto value = util::environment(variable);
    return value ? number(value->substr(0, value->find_first_of("(,"))) : std::nullopt;
}

bool makes_sense(const Shard& shard) { return shard.count >= 1 && shard.index >= 0 && shard.index < shard.count; }

}  // namespace

bool Shard::owns(std::string_view key) const {
    std::uint64_t value = 0;
    std::from_chars(key.data(), key.data() + std::min<std::size_t>(key.size(), 15), value, 16);
    return value % static_cast<std::uint64_t>(count) == static_cast<std::uint64_t>(index);
}

Shard parse_shard(const std::string& text) {
    const std::size_t slash = text.find('/');
    if (slash != std::string::npos) {
        const auto index = number(std::string_view(text).substr(0, slash));
        const auto count = number(std::string_view(text).substr(slash + 1));
        if (index && count && makes_sense({*index, *count})) return {*index, *count};
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("shard: expected INDEX/COUNT with an index from 0 to COUNT - 1, got \"{}\"", text));
}

std::optional<Rank> rank_from_environment() {
    for (const Launcher& launcher : launchers) {
        const auto index = number_from(launcher.index);
        const auto count = number_from(launcher.count);
        if (!index || !count || !makes_sense({*index, *count})) continue;
        const auto local = number_from(launcher.local);
        if (launcher.needs_local && !local) continue;
        const int local_count = std::clamp(first_number_from(launcher.local_count).value_or(*count), 1, *count);
        return Rank{{*index, *count}, std::max(0, local.value_or(0)), local_count, launcher.name};
    }
    return std::nullopt;
}

}  // namespace smlora::tune
