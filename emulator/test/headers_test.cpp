// The emulated headers have the functions of the real ones; the source is rewritten as it should be.
#include "cuda/capture_functions.hpp"
#include "nvrtc/rewrite.hpp"
#include "test/gpu.hpp"

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace smlora::emulator {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

/// What the functions of a header look like to their callers: type, name and the types of the parameters.
std::set<std::string> signatures(std::string text) {
    text = std::regex_replace(text, std::regex("//[^\n]*"), "");
    text = std::regex_replace(text, std::regex("\\\\\n|,?\\s*SMLORA_WHERE\\b(?=\\s*\\))"), "");
    text = std::regex_replace(text, std::regex("__forceinline__|SMLORA_EMULATED|\\bstatic\\b"), "");
    static const std::regex function(R"(__device__\s+([\w:&* ]+?)\s*\b(\w+(?:<\w+>)?)\s*\(([^{;]*?)\)\s*(?:\{|;))");
    std::set<std::string> found;
    for (std::sregex_iterator at(text.begin(), text.end(), function), end; at != end; ++at) {
        std::string signature = (*at)[1].str() + " " + (*at)[2].str() + "(" + (*at)[3].str() + ")";
        signature = std::regex_replace(signature, std::regex("\\s+"), " ");
        // A specialisation is one of its template.
        if (signature.find('<') == std::string::npos) found.insert(signature);
    }
    return found;
}

/// Names alone: an emulated function may leave out a parameter's name.
std::set<std::string> without_names(const std::set<std::string>& signatures_of) {
    std::set<std::string> result;
    for (const std::string& signature : signatures_of) {
        result.insert(std::regex_replace(signature, std::regex(R"(\s*\b\w+(?=[,)]))"), ""));
    }
    return result;
}

TEST(EmulatedHeaders, HaveTheFunctionsOfTheRealOnes) {
    const fs::path real(SMLORA_KERNEL_TEMPLATES "/ptx");
    const fs::path emulated(SMLORA_EMULATOR_FOLDER "/ptx");
    int functions = 0;
    for (const auto& entry : fs::directory_iterator(real)) {
        const std::string name = entry.path().filename();
        ASSERT_TRUE(fs::exists(emulated / name)) << name << " has no emulated counterpart";
        const auto expected = without_names(signatures(read(entry.path())));
        EXPECT_EQ(without_names(signatures(read(emulated / name))), expected) << name;
        functions += static_cast<int>(expected.size());
    }
    EXPECT_GT(functions, 25) << "the pattern of a function no longer fits";
    for (const auto& entry : fs::directory_iterator(emulated)) {
        EXPECT_TRUE(fs::exists(real / entry.path().filename())) << entry.path() << " emulates nothing";
    }
}

TEST(Rewriting, GivesSharedVariablesToTheRuntime) {
    const std::string text = rewrite_shared(
        "extern __shared__ __align__(128) unsigned char shared[];\n"
        "extern __shared__ int plain[];\n"
        "__shared__ float tile[depth][tile_c + 1];\n"
        "__shared__ typename C::Element one;\n"
        "int unshared[4];\n");
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5);
    EXPECT_EQ(text.find("__shared__"), std::string::npos) << text;
    for (const char* part :
         {"unsigned char* const shared = ", "dynamic_shared<unsigned char>(128+0)",
          "int* const plain = ", "dynamic_shared<int>(+0)", "using tile_type = float [depth][tile_c + 1];",
          "auto& tile = ", "using one_type = typename C::Element ;", "int unshared[4];"}) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
    }
}

TEST(Rewriting, FindsKernelsWithTheirBounds) {
    const auto kernels = kernels_of(
        "extern \"C\" __global__ void __launch_bounds__(128, 2) first(const __grid_constant__ A args) {}\n"
        "extern \"C\" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(512, 1) second(int a) {}\n"
        "__device__ void none() {}\n"
        "extern \"C\" __global__ void third() {}\n");
    ASSERT_EQ(kernels.size(), 3U);
    EXPECT_EQ(kernels[0].name, "first");
    EXPECT_EQ(kernels[0].most_threads, "128");
    EXPECT_EQ(kernels[1].name, "second");
    EXPECT_EQ(kernels[1].most_threads, "512");
    EXPECT_EQ(kernels[1].cluster, "2, 1, 1");
    EXPECT_EQ(kernels[2].name, "third");
    EXPECT_EQ(kernels[2].cluster, "0, 0, 0");
}

TEST(Libraries, ExportWhatTheProductLooksForAndNoMore) {
    const auto exported = [](const std::string& library) {
        std::set<std::string> names;
        const std::string command = "nm -D --defined-only " SMLORA_EMULATOR_LIBRARIES "/" + library;
        std::FILE* const pipe = popen(command.c_str(), "r");
        std::array<char, 256> line{};
        while (std::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr) {
            std::istringstream words(line.data());
            std::string address, kind, name;
            words >> address >> kind >> name;
            names.insert(name);
        }
        pclose(pipe);
        return names;
    };
#define SMLORA_STRING_OF(name) #name
#define SMLORA_NAME(function) SMLORA_STRING_OF(function),
    EXPECT_EQ(exported("libcuda.so.1"),
              (std::set<std::string>{SMLORA_CUDA_FUNCTIONS(SMLORA_NAME) SMLORA_CAPTURE_FUNCTIONS(SMLORA_NAME)}));
    EXPECT_EQ(exported("libnvrtc.so.13"), (std::set<std::string>{SMLORA_NVRTC_FUNCTIONS(SMLORA_NAME)}));
#undef SMLORA_NAME
#undef SMLORA_STRING_OF
}

TEST(Compiler, ReportsErrorsAndRefusesOptionsThatItDoesNotKnow) {
    const auto message = [](const std::string& source, const std::vector<std::string>& with) {
        try {
            static_cast<void>(nvrtc().compile({source, {}, with}, "test"));
        } catch (const std::exception& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    EXPECT_NE(message("int x = ;", options()).find("NVRTC_ERROR_COMPILATION"), std::string::npos);
    EXPECT_NE(message("int x;", {"--no-such-option"}).find("NVRTC_ERROR_INVALID_OPTION"), std::string::npos);
    EXPECT_EQ(message("extern \"C\" __global__ void k() {}", options("sm_80")), "");
}

}  // namespace
}  // namespace smlora::emulator
