#include "jit/entry_metadata.hpp"

#include "jit/elf.hpp"
#include "util/hash.hpp"

#include <fmt/format.h>

namespace smlora::jit {

cache::KernelEntry make_entry(const CompileRequest& request, const std::string& key, const CompiledKernel& kernel) {
    nlohmann::json templates = nlohmann::json::object();
    for (const Template& item : request.templates) {
        templates[item.name] = util::xxh128_hex(item.text);
    }
    const ResourceUse& use = kernel.resources;
    return {
        {
            {"key", key},
            {"kernel", readable(request.spec)},
            {"symbol", symbol(request.spec)},
            {"arch", request.arch.name()},
            {"compiler", request.compiler.name()},
            {"options", request.options},
            {"templates", templates},
            {"source", request.source},
            {"threads", request.spec.threads},
            {"dynamic_shared", request.spec.dynamic_shared},
            {"registers", use.registers},
            {"spill_bytes", use.spill_bytes()},
            {"spill_store_bytes", use.spill_store_bytes},
            {"spill_load_bytes", use.spill_load_bytes},
            {"stack_bytes", use.stack_bytes},
            {"shared_bytes", use.shared_bytes},
            {"barriers", use.barriers},
            {"serialization_notes", kernel.serialization_notes},
            {"compile_seconds", kernel.seconds},
        },
        kernel.cubin,
    };
}

bool is_entry_of(const cache::KernelEntry& entry, const CompileRequest& request, const std::string& key,
                 std::string& why) {
    if (!entry.metadata.is_object() || !entry.metadata.contains("key") || entry.metadata["key"] != key) {
        why = "its metadata belongs to another key";
        return false;
    }
    return find_kernel(entry.cubin, symbol(request.spec), why).has_value();
}

std::int64_t metadata_integer(const cache::KernelEntry& entry, const char* name) {
    if (!entry.metadata.is_object()) {
        return 0;
    }
    const auto found = entry.metadata.find(name);
    return found != entry.metadata.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

}  // namespace smlora::jit
