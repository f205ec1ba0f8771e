// The machines on which first use is tested, and what its processes tell each other.
#pragma once

#include "support/case.hpp"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace smlora::test {

struct Machine {
    const char* name;
    bool emulated;
    Problem problem;
    std::int64_t T;
    int processes;           ///< that start together
    std::size_t candidates;  ///< that first use tries
    int rounds;
    double short_seconds;  ///< not enough to tune to the end
};

inline const Machine emulated{"emulated", true, shape(3, 64, 48, 8, 2), 24, 8, 3, 2, 0.01};
inline const Machine gpu{"gpu", false, shape(64, 2048, 2048, 16, 8), 2048, 8, 24, 9, 1};

inline std::string read(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

inline std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

}  // namespace smlora::test
