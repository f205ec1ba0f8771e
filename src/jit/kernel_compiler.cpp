#include "jit/kernel_compiler.hpp"

#include "cache/entry.hpp"
#include "jit/compile_options.hpp"
#include "jit/elf.hpp"
#include "util/hash.hpp"

#include <smlora/error.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace smlora::jit {

CompileRequest compile_request(const KernelSpec& spec, const gpu::Arch& arch, const CompilerVersion& compiler,
                               const Templates& templates) {
    return {spec,        arch, compiler, templates.closure(spec.family + ".cuh"), compile_options(arch, compiler),
            source(spec)};
}

std::string cache_key(const CompileRequest& request) {
    util::FieldHasher hasher;
    hasher.add("entry format", std::to_string(cache::entry_format));
    hasher.add("arch", request.arch.name());
    hasher.add("compiler", request.compiler.name());
    for (const std::string& option : request.options) {
        hasher.add("option", option);
    }
    for (const Template& item : request.templates) {
        hasher.add("template name", item.name);
        hasher.add("template text", item.text);
    }
    hasher.add("source", request.source);
    return hasher.hex();
}

CompiledKernel compile_kernel(const CompileRequest& request, const Nvrtc& nvrtc) {
    const std::string what = fmt::format("kernel {} for {}", readable(request.spec), request.arch.name());
    if (nvrtc.version() != request.compiler) {
        throw Error(ErrorCode::internal, fmt::format("{}: expected to be compiled with {}, got {}", what,
                                                     request.compiler.name(), nvrtc.version().name()));
    }
    if (!std::binary_search(nvrtc.archs().begin(), nvrtc.archs().end(), request.arch.number())) {
        throw Error(ErrorCode::compile,
                    fmt::format("{}: {} ({}) does not know this architecture; it compiles for {}", what,
                                request.compiler.name(), nvrtc.file().string(), fmt::join(nvrtc.archs(), ", ")));
    }
    Binary binary = nvrtc.compile({request.source, request.templates, request.options}, what);
    std::string why;
    if (!find_kernel(binary.cubin, symbol(request.spec), why)) {
        throw Error(ErrorCode::compile, fmt::format("{}: {} gave a cubin that cannot be used: {}\nlog:\n{}", what,
                                                    request.compiler.name(), why, binary.log));
    }
    return {std::move(binary.cubin), resource_use(binary.log), serialization_notes(binary.log), binary.seconds};
}

}  // namespace smlora::jit
