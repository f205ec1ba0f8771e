// Kernels given as text, compiled and run by the stand-ins as the product would: their libraries are opened by path.
#pragma once

#include "gpu/driver.hpp"
#include "jit/nvrtc.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

namespace smlora::emulator {

/// The functions of the libcuda stand-in.
const gpu::Driver& driver();

/// The NVRTC stand-in.
const jit::Nvrtc& nvrtc();

/// Options for an architecture; sm_90a unless a test says otherwise.
std::vector<std::string> options(const std::string& arch = "sm_90a");

/// Device memory of `count` elements.
template <class T>
class DeviceArray {
 public:
    explicit DeviceArray(std::size_t count) : count_(count) {
        EXPECT_EQ(driver().cuMemAlloc(&address_, count * sizeof(T)), CUDA_SUCCESS);
    }
    explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
        EXPECT_EQ(driver().cuMemcpyHtoD(address_, values.data(), count_ * sizeof(T)), CUDA_SUCCESS);
    }
    ~DeviceArray() { driver().cuMemFree(address_); }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;

    [[nodiscard]] T* data() const { return reinterpret_cast<T*>(address_); }
    [[nodiscard]] std::vector<T> values() const {
        std::vector<T> values(count_);
        EXPECT_EQ(driver().cuMemcpyDtoH(values.data(), address_, count_ * sizeof(T)), CUDA_SUCCESS);
        return values;
    }

 private:
    CUdeviceptr address_ = 0;
    std::size_t count_;
};

struct Grid {
    unsigned blocks = 1;
    unsigned threads = 32;
    unsigned shared = 0;
    unsigned cluster = 1;
    bool overlaps = false;     ///< it may begin before the launch before it has ended
    bool synchronises = true;  ///< afterwards
};

/// How a launch ended, and what was printed meanwhile.
struct Outcome {
    CUresult result;
    std::string report;
};

/// A kernel `extern "C" __global__ void test(...)`. Its source may include the headers of kernel_templates/.
class TestKernel {
 public:
    explicit TestKernel(const std::string& source);
    ~TestKernel();
    TestKernel(const TestKernel&) = delete;
    TestKernel& operator=(const TestKernel&) = delete;

    template <class... Parameters>
    [[nodiscard]] Outcome launch(const Grid& grid, Parameters... parameters) const {
        std::array<void*, sizeof...(Parameters)> addresses{&parameters...};
        return launch_with(grid, addresses.data());
    }
    /// Expects success.
    template <class... Parameters>
    void run(const Grid& grid, Parameters... parameters) const {
        const Outcome outcome = launch(grid, parameters...);
        EXPECT_EQ(outcome.result, CUDA_SUCCESS) << outcome.report;
    }

 private:
    [[nodiscard]] Outcome launch_with(const Grid& grid, void** parameters) const;

    CUmodule module_ = nullptr;
    CUfunction function_ = nullptr;
};

/// The report has all of these parts.
void expect_report(const Outcome& outcome, CUresult result, std::initializer_list<const char*> parts);

}  // namespace smlora::emulator
