// A program with more rights than the person who starts it.
#include "program.hpp"

#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace smlora::tool {
namespace {

namespace fs = std::filesystem;

using Setuid = ProgramTest;

TEST_F(Setuid, FollowsNoVariable) {
    if (::geteuid() != 0 || std::system("setpriv --version > /dev/null 2>&1") != 0) {
        GTEST_SKIP() << "needs root and setpriv, to start a program as somebody else";
    }
    const fs::path folder = cache().parent_path();
    fs::permissions(folder, static_cast<fs::perms>(0711));
    const fs::path program = folder / "program";
    fs::copy_file(SMLORA_TUNE, program);
    const fs::path output = folder / "output";
    const auto path_as_nobody = [&](unsigned permissions) {
        fs::permissions(program, static_cast<fs::perms>(permissions));
        const std::string command = "setpriv --reuid=65534 --regid=65534 --clear-groups env SMLORA_CACHE_DIR=/chosen " +
                                    program.string() + " cache path > " + output.string() + " 2>&1";
        static_cast<void>(std::system(command.c_str()));
        std::ifstream stream(output);
        return std::string(std::istreambuf_iterator<char>(stream), {});
    };
    EXPECT_EQ(path_as_nobody(0755), "/chosen\n");
    EXPECT_EQ(path_as_nobody(04755).find("/chosen"), std::string::npos) << path_as_nobody(04755);
    EXPECT_NE(path_as_nobody(04755).find("no folder for the cache"), std::string::npos) << path_as_nobody(04755);
}

}  // namespace
}  // namespace smlora::tool
