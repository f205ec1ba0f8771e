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
    bool needs_local = false;
};

// mpirun and torchrun inside of a SLURM allocation start more processes than srun knows of: SLURM comes last. What it
// has in common with MPICH is the interface behind MPICH's first two variables, but not the third.
constexpr std::array launchers{
    Launcher{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"},
    Launcher{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    Launcher{"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", true},
    Launcher{"SLURM", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"},
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
        return Rank{{*index, *count}, std::max(0, local.value_or(0)), launcher.name};
    }
    return std::nullopt;
}

}  // namespace smlora::tune
