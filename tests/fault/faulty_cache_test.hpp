// A cache on a disk whose calls fail.
#pragma once

#include "cache/cache.hpp"
#include "fault/fault_file_system.hpp"
#include "unit/cache/fixtures.hpp"

namespace smlora::testing {

class FaultyCacheTest : public CacheTest {
 protected:
    [[nodiscard]] cache::CacheOptions on(FaultFileSystem& disk) {
        cache::CacheOptions chosen = options();
        chosen.files = &disk;
        return chosen;
    }
};

}  // namespace smlora::testing
