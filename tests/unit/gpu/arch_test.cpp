#include "gpu/arch.hpp"

#include <smlora/error.hpp>

#include <gtest/gtest.h>

namespace smlora::gpu {
namespace {

TEST(Arch, NamesCarryTheSuffix) {
    std::vector<std::string> names;
    for (const Arch& arch : supported_archs()) {
        names.push_back(arch.name());
    }
    EXPECT_EQ(names, (std::vector<std::string>{"sm_80", "sm_86", "sm_87", "sm_89", "sm_90a", "sm_100a", "sm_103a",
                                               "sm_120a", "sm_121a"}));
}

TEST(Arch, IsFoundByItsName) {
    for (const Arch& arch : supported_archs()) {
        EXPECT_EQ(arch_from_name(arch.name()), arch);
    }
}

TEST(Arch, UnknownNameIsRefusedWithTheListOfKnownOnes) {
    for (const char* name : {"sm_90", "sm_75", "90a", "", "sm_90a "}) {
        try {
            (void)arch_from_name(name);
            FAIL() << name;
        } catch (const Error& error) {
            EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
            EXPECT_NE(std::string(error.what()).find("sm_80, sm_86"), std::string::npos) << error.what();
            EXPECT_NE(std::string(error.what()).find('"' + std::string(name) + '"'), std::string::npos) << error.what();
        }
    }
}

TEST(Arch, HopperCapabilityTakesTheArchitectureSpecificTarget) {
    EXPECT_EQ(arch_of_capability(9, 0).name(), "sm_90a");
    EXPECT_EQ(arch_of_capability(8, 6).name(), "sm_86");
    EXPECT_EQ(arch_of_capability(12, 1).name(), "sm_121a");
}

TEST(Arch, UnknownCapabilityIsUnsupported) {
    try {
        (void)arch_of_capability(7, 5);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::unsupported);
        EXPECT_NE(std::string(error.what()).find("7.5"), std::string::npos);
    }
}

TEST(Arch, ABlockGetsAllOfAMultiprocessorButTheSystemsKibibyte) {
    for (const Arch& arch : supported_archs()) {
        EXPECT_EQ(arch.shared_bytes_per_block, arch.shared_bytes_per_multiprocessor - 1024) << arch.name();
    }
    EXPECT_EQ(arch_from_name("sm_80").shared_bytes_per_block, 163 * 1024);
    EXPECT_EQ(arch_from_name("sm_89").shared_bytes_per_block, 99 * 1024);
    EXPECT_EQ(arch_from_name("sm_90a").shared_bytes_per_block, 227 * 1024);
}

}  // namespace
}  // namespace smlora::gpu
