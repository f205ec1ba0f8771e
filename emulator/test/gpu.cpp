#include "test/gpu.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

/// A function of the program that has the name of the kernels here, and must not be taken for one.
extern "C" __attribute__((visibility("default"))) void test() { std::abort(); }

namespace smlora::emulator {
namespace {

namespace fs = std::filesystem;

/// Everything in kernel_templates/, as the product passes it.
const std::vector<jit::Template>& templates() {
    static const std::vector<jit::Template> all = [] {
        std::vector<jit::Template> found;
        const fs::path root(SMLORA_KERNEL_TEMPLATES);
        for (const auto& entry : fs::recursive_directory_iterator(root)) {
            if (!entry.is_regular_file()) continue;
            std::ostringstream text;
            text << std::ifstream(entry.path()).rdbuf();
            found.push_back({fs::relative(entry.path(), root).string(), text.str()});
        }
        return found;
    }();
    return all;
}

}  // namespace

const gpu::Driver& driver() {
    static const gpu::Driver functions = [] {
        const gpu::Driver loaded = gpu::load_driver(SMLORA_EMULATOR_LIBRARIES "/libcuda.so.1");
        gpu::initialize(loaded);
        return loaded;
    }();
    return functions;
}

const jit::Nvrtc& nvrtc() {
    static const jit::Nvrtc opened(SMLORA_EMULATOR_LIBRARIES "/libnvrtc.so.13");
    return opened;
}

std::vector<std::string> options(const std::string& arch) { return {"--gpu-architecture=" + arch, "-std=c++20"}; }

TestKernel::TestKernel(const std::string& source) {
    const jit::Binary binary = nvrtc().compile({source, templates(), options()}, "test");
    EXPECT_EQ(driver().cuModuleLoadData(&module_, binary.cubin.data()), CUDA_SUCCESS);
    EXPECT_EQ(driver().cuModuleGetFunction(&function_, module_, "test"), CUDA_SUCCESS);
    EXPECT_EQ(driver().cuFuncSetAttribute(function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 227 * 1024),
              CUDA_SUCCESS);
}

TestKernel::~TestKernel() { driver().cuModuleUnload(module_); }

Outcome TestKernel::launch_with(const Grid& grid, void** parameters) const {
    std::array<CUlaunchAttribute, 2> attributes{};
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attributes[0].value.clusterDim = {grid.cluster, 1, 1};
    attributes[1].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[1].value.programmaticStreamSerializationAllowed = grid.overlaps ? 1 : 0;
    CUlaunchConfig config{};
    config.gridDimX = grid.blocks;
    config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = grid.threads;
    config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = grid.shared;
    config.attrs = attributes.data();
    config.numAttrs = attributes.size();
    testing::internal::CaptureStderr();
    CUresult result = driver().cuLaunchKernelEx(&config, function_, parameters, nullptr);
    if (result == CUDA_SUCCESS && grid.synchronises) result = driver().cuCtxSynchronize();
    return {result, testing::internal::GetCapturedStderr()};
}

void expect_report(const Outcome& outcome, CUresult result, std::initializer_list<const char*> parts) {
    EXPECT_EQ(outcome.result, result) << outcome.report;
    for (const char* part : parts)
        EXPECT_NE(outcome.report.find(part), std::string::npos) << part << "\nin\n" << outcome.report;
}

}  // namespace smlora::emulator
