// The functions of NVRTC.
#include "nvrtc/compile.hpp"
#include "nvrtc/exports.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>

using smlora::emulator::Result;
using smlora::emulator::Source;

struct _nvrtcProgram {
    Source source;
    Result result;
};

namespace {

constexpr std::array archs = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

bool is_known(std::string_view option) {
    for (const std::string_view known : {"-std=c++20", "-default-device", "-modify-stack-limit=false",
                                         "--no-source-include", "-Xptxas=-v", "-no-cache"}) {
        if (option == known) return true;
    }
    return option.starts_with("--frandom-seed=");
}

}  // namespace

const char* nvrtcGetErrorString(nvrtcResult result) {
    switch (result) {
        case NVRTC_SUCCESS:
            return "NVRTC_SUCCESS";
        case NVRTC_ERROR_INVALID_INPUT:
            return "NVRTC_ERROR_INVALID_INPUT";
        case NVRTC_ERROR_INVALID_OPTION:
            return "NVRTC_ERROR_INVALID_OPTION";
        case NVRTC_ERROR_COMPILATION:
            return "NVRTC_ERROR_COMPILATION";
        default:
            return "NVRTC_ERROR_INTERNAL_ERROR";
    }
}

nvrtcResult nvrtcVersion(int* major, int* minor) {
    *major = smlora::emulator::version().major;
    *minor = smlora::emulator::version().minor;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetNumSupportedArchs(int* count) {
    *count = static_cast<int>(archs.size());
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetSupportedArchs(int* numbers) {
    std::copy(archs.begin(), archs.end(), numbers);
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char*, int headers,
                               const char* const* texts, const char* const* names) {
    auto* const made = new _nvrtcProgram;
    made->source.text = source;
    for (int i = 0; i < headers; ++i) made->source.headers.emplace_back(names[i], texts[i]);
    *program = made;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
    delete *program;
    *program = nullptr;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int count, const char* const* options) {
    constexpr std::string_view architecture = "--gpu-architecture=";
    program->source.arch = "sm_75";
    for (int i = 0; i < count; ++i) {
        const std::string_view option = options[i];
        if (option.starts_with(architecture)) {
            program->source.arch = option.substr(architecture.size());
        } else if (!is_known(option)) {
            program->result.log = fmt::format("nvrtc: error: unrecognized option {} found\n", option);
            return NVRTC_ERROR_INVALID_OPTION;
        }
    }
    try {
        program->result = smlora::emulator::compile(program->source);
    } catch (const std::exception& error) {
        program->result.log = error.what();
        return NVRTC_ERROR_INTERNAL_ERROR;
    }
    return program->result.compiled ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, std::size_t* bytes) {
    *bytes = program->result.image.size();
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char* image) {
    std::memcpy(image, program->result.image.data(), program->result.image.size());
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, std::size_t* bytes) {
    *bytes = program->result.log.size() + 1;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* log) {
    std::memcpy(log, program->result.log.c_str(), program->result.log.size() + 1);
    return NVRTC_SUCCESS;
}
