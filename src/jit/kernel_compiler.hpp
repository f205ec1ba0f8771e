// From a specialisation to machine code and the key under which it is kept.
#pragma once

#include "gpu/arch.hpp"
#include "jit/compiler_version.hpp"
#include "jit/kernel_spec.hpp"
#include "jit/nvrtc.hpp"
#include "jit/ptxas_report.hpp"
#include "jit/templates.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace smlora::jit {

/// Everything that decides what a kernel's machine code is; equal requests give equal bytes.
struct CompileRequest {
    KernelSpec spec;
    gpu::Arch arch;
    CompilerVersion compiler;
    std::vector<Template> templates;   ///< the closure of the family's template
    std::vector<std::string> options;  ///< compile_options()
    std::string source;                ///< the generated source
};

/// Throws Error{compile} for a template that is missing.
[[nodiscard]] CompileRequest compile_request(const KernelSpec& spec, const gpu::Arch& arch,
                                             const CompilerVersion& compiler, const Templates& templates);

/// 32 hexadecimal digits, the name of the kernel's cache entry: a hash of the entry format, the architecture with its
/// suffix, the compiler with its build number, each option, the name and content of each template, and the source.
/// Paths are no part of it. The launch's dynamic shared memory is none either: it does not change the machine code.
[[nodiscard]] std::string cache_key(const CompileRequest& request);

struct CompiledKernel {
    std::string cubin;  ///< sound ELF that has the kernel
    ResourceUse resources;
    std::vector<std::string> serialization_notes;
    double seconds = 0;
};

/// Compiles with `nvrtc`, whose version must be the request's. Throws Error{compile} with the kernel's readable name,
/// the options and NVRTC's log; also when what NVRTC gave is no cubin with the kernel in it.
[[nodiscard]] CompiledKernel compile_kernel(const CompileRequest& request, const Nvrtc& nvrtc);

}  // namespace smlora::jit
