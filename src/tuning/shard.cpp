#include "tuning/shard.hpp"

#include "util/environment.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

namespace smlora::tuning {
namespace {

struct Launcher {
    const char* name;
    const char* index;
    const char* count;
    const char* local;
    const char* local_count;
    const char* mark;  // beside `index`, without which it was not this launcher
};

// mpirun and torchrun inside of a SLURM allocation start more processes than srun knows of: SLURM comes last. What it
// has in common with MPICH is the interface behind MPICH's first two variables, but not the third. The script of
// sbatch, which runs once, has SLURM_PROCID and SLURM_NTASKS as well, but is no step of its job's. WORLD_SIZE alone is
// what scripts set for programs that take their rank from elsewhere, and RANK alone may be an adapter's.
constexpr std::array launchers{
    Launcher{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"},
    Launcher{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_RANK"},
    Launcher{"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
    Launcher{"SLURM", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE",
             "SLURM_STEP_NUM_TASKS"},
};

std::optional<int> number(std::string_view text) {
    int value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    return error == std::errc{} && stop == end ? std::optional(value) : std::nullopt;
}

/// SLURM's is "8(x4),2": of four machines with eight and one with two.
std::optional<int> first_number_from(const char* variable) {
    const auto value = util::environment(variable);
    return value ? number(value->substr(0, value->find_first_of("(,"))) : std::nullopt;
}

bool makes_sense(const Shard& shard) { return shard.count >= 1 && shard.index >= 0 && shard.index < shard.count; }

/// Throws Error{invalid_argument} with what was expected.
[[noreturn]] void refuse(const char* variable, const std::string& expected) {
    const auto value = util::environment(variable);
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: expected {}, got {}", variable, expected,
                                                         value ? fmt::format("\"{}\"", *value) : "nothing"));
}

int count_from(const Launcher& launcher) {
    const auto count = number(util::environment(launcher.count).value_or(""));
    if (count && *count >= 1) return *count;
    refuse(launcher.count,
           fmt::format("the number of processes that {} started, as {} is set", launcher.name, launcher.index));
}

int index_from(const char* variable, const Launcher& launcher, int count) {
    const auto index = number(util::environment(variable).value_or(""));
    if (index && makes_sense({*index, count})) return *index;
    refuse(variable, fmt::format("0 to {}, as {} is {}", count - 1, launcher.count, count));
}

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
        if (!util::environment(launcher.index) || !util::environment(launcher.mark)) continue;
        const int count = count_from(launcher);
        const int index = index_from(launcher.index, launcher, count);
        const int local = util::environment(launcher.local) ? index_from(launcher.local, launcher, count) : 0;
        const int local_count = std::clamp(first_number_from(launcher.local_count).value_or(count), 1, count);
        return Rank{{index, count}, local, local_count, launcher.name};
    }
    return std::nullopt;
}

}  // namespace smlora::tuning
