#include "unit/gpu/fake_driver.hpp"

#include <smlora/system.hpp>
#include <smlora/version.hpp>

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace smlora {
namespace {

TEST(SystemInfo, NamesNvrtcWithItsBuildAndTheArchitecturesItCanCompileFor) {
    const SystemInfo info = system_info();
    EXPECT_EQ(info.smlora_version, SMLORA_VERSION);
    ASSERT_TRUE(info.nvrtc_found) << info.nvrtc_error;
    EXPECT_EQ(std::count(info.nvrtc_version.begin(), info.nvrtc_version.end(), '.'), 2);
    EXPECT_NE(info.nvrtc_library.find("libnvrtc.so.1"), std::string::npos);
    ASSERT_FALSE(info.archs.empty());
    EXPECT_EQ(info.archs.front(), "sm_80");
    EXPECT_NE(std::find(info.archs.begin(), info.archs.end(), "sm_90a"), info.archs.end());
}

TEST(SystemInfo, WithoutADriverSaysWhyAndDoesNotThrow) {
    if (void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
        dlclose(handle);
        GTEST_SKIP() << "this machine has a driver";
    }
    const SystemInfo info = system_info();
    EXPECT_FALSE(info.driver_found);
    EXPECT_TRUE(info.devices.empty());
    EXPECT_NE(info.driver_error.find("libcuda.so.1"), std::string::npos);
}

TEST(SystemInfo, ListsTheDevices) {
    const test::FakeDriver fake;
    const SystemInfo info = system_info();
    EXPECT_TRUE(info.driver_found);
    EXPECT_EQ(info.driver_version, 13000);
    ASSERT_EQ(info.devices.size(), 1U);
    EXPECT_EQ(info.devices[0].name, "Fake H200");
    EXPECT_EQ(info.devices[0].arch, "sm_90a");
    EXPECT_EQ(info.devices[0].multiprocessors, 131);
    EXPECT_EQ(info.devices[0].shared_bytes_per_block, 227U * 1024);
    EXPECT_TRUE(info.driver_error.empty());
}

}  // namespace
}  // namespace smlora
