// A cache on a disk whose calls fail.
#pragma once

#include "cache/cache.hpp"
#include "fault/fault_file_system.hpp"
#include "support/environment.hpp"
#include "unit/cache/fixtures.hpp"

#include <cstdlib>
#include <filesystem>

namespace smlora::testing {

/// Thousands of small files are made, which on a busy disk takes minutes.
class InMemory {
    ScopedVariable tmpdir_{"TMPDIR", std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : std::getenv("TMPDIR")};
};

class FaultyCacheTest : InMemory, public CacheTest {
 protected:
    [[nodiscard]] cache::CacheOptions on(FaultFileSystem& disk) {
        cache::CacheOptions chosen = options();
        chosen.files = &disk;
        return chosen;
    }
};

}  // namespace smlora::testing
