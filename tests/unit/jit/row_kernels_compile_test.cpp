// The memory-bound kernels and the plain reference kernels compile in every variant, without spilling a register or
// asking for more shared memory than a block has.
#include "jit/kernel_compiler.hpp"
#include "jit/nvrtc.hpp"
#include "jit/templates.hpp"
#include "util/thread_pool.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <exception>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace smlora::jit {
namespace {

using Constants = std::vector<Constant>;

constexpr const char* index32 = "int";
constexpr const char* index64 = "long long";

KernelSpec spec(const char* family, Constants constants, unsigned threads = 256) {
    KernelSpec made;
    made.family = family;
    made.constants = std::move(constants);
    made.threads = threads;
    return made;
}

void add_routes(std::vector<KernelSpec>& specs) {
    for (const int E : {1, 1024}) {
        for (const char* type : {index32, index64}) {
            const Constants common{{"E", E}, {"Input", type}, {"Index", type}};
            auto with = [&](Constants more) {
                more.insert(more.begin(), common.begin(), common.end());
                return more;
            };
            specs.push_back(spec("route_count", with({{"THREADS", 256}})));
            specs.push_back(spec("route_scatter", with({{"THREADS", 256}})));
            specs.push_back(spec("route_small", with({{"THREADS", 1024}, {"CAPACITY", 16384}}), 1024));
            specs.push_back(spec("route_reference", common, 32));
        }
        specs.push_back(spec("route_scan", {{"E", E}, {"THREADS", 1024}}, 1024));
    }
}

void add_row_kernels(std::vector<KernelSpec>& specs, const char* element, bool vector_rows, bool flat) {
    const Constants gather{{"E", 128},        {"WIDTH", 2048},   {"VECTOR", vector_rows}, {"ROWS", 0},
                           {"TOP_K", 8},      {"FLAT", flat},    {"HAS_GATES", 1},        {"Element", element},
                           {"Gate", element}, {"Index", index64}};
    specs.push_back(spec("gather_rows", gather));
    specs.push_back(spec("gather_rows_reference", gather));
    for (const int width : {96, 2048, 7168}) {
        const Constants gradient{{"WIDTH", width},
                                 {"VECTOR", vector_rows},
                                 {"LEFT_ROWS", flat ? 0 : 2},
                                 {"RIGHT_ROWS", 1},
                                 {"TOP_K", 8},
                                 {"FLAT", flat},
                                 {"E", 128},
                                 {"SCALE_LEFT", !flat},
                                 {"HAS_BIAS", !flat},
                                 {"BIAS_WIDTH", 1536},
                                 {"BIAS_VECTOR", vector_rows},
                                 {"BIAS_ROWS", 0},
                                 {"Element", element},
                                 {"Gate", "float"},
                                 {"Index", index32}};
        specs.push_back(spec("gate_gradient", gradient));
        if (width == 96) specs.push_back(spec("gate_gradient_reference", gradient));
    }
}

void add_combine(std::vector<KernelSpec>& specs, const char* element, bool vector_rows) {
    for (const int top_k : {1, 2, 10, 64}) {
        const Constants combine{{"TOP_K", top_k},         {"WIDTH", 2048},      {"VECTOR", vector_rows},
                                {"HAS_GATES", top_k > 1}, {"Element", element}, {"Gate", "float"}};
        specs.push_back(spec("combine", combine));
        specs.push_back(spec("combine_reference", combine));
    }
}

void add_activation(std::vector<KernelSpec>& specs, const char* element, bool vector_rows) {
    for (const int kind : {0, 1, 2, 3, 4}) {
        for (const auto& [backward, gates] : {std::pair{false, false}, {true, false}, {true, true}}) {
            const Constants constants{
                {"WIDTH", 768},         {"VECTOR", vector_rows}, {"ACTIVATION", kind}, {"INTERLEAVED", kind == 4},
                {"BACKWARD", backward}, {"WRITES_A", 1},         {"HAS_GATES", gates}, {"Element", element},
                {"Gate", "float"},      {"Index", "int"}};
            specs.push_back(spec("activation", constants));
            if (!vector_rows) specs.push_back(spec("activation_reference", constants));
        }
    }
}

/// `arch`: on sm_90a registers are allotted for all threads that a multiprocessor holds, where no tile turns.
void add_packing(std::vector<KernelSpec>& specs, const char* element, bool vectors, std::string_view arch) {
    for (const int fastest : {0, 1, 2}) {
        for (const char* source : {"float", element}) {
            const Constants types{
                {"THREADS", 256}, {"FASTEST", fastest}, {"VECTOR", vectors}, {"Source", source}, {"Element", element}};
            for (Constants shape :
                 {Constants{{"E", 128}, {"OUTER", 17}, {"INNER", 2048}, {"OUTER_PAD", 24}, {"INNER_PAD", 2048}},
                  Constants{{"E", 128}, {"OUTER", 1536}, {"INNER", 16}, {"OUTER_PAD", 1536}, {"INNER_PAD", 16}},
                  Constants{{"E", 5}, {"OUTER", 80}, {"INNER", 8}, {"OUTER_PAD", 80}, {"INNER_PAD", 16}}}) {
                shape.insert(shape.end(), types.begin(), types.end());
                KernelSpec packing = spec("pack_adapter", shape);
                if (fastest == 0 && arch == "sm_90a") packing.min_blocks = 8;
                specs.push_back(packing);
                if (!vectors) specs.push_back(spec("pack_adapter_reference", shape));
            }
        }
    }
}

void add_product_references(std::vector<KernelSpec>& specs, const char* element) {
    for (const int rank : {0, 16}) {
        specs.push_back(spec("grouped_product_reference", {{"E", 128},
                                                           {"RED", 2048},
                                                           {"OUT", 768},
                                                           {"RANK", rank},
                                                           {"ROWS", 0},
                                                           {"OUT_ROWS", 1},
                                                           {"TOP_K", 8},
                                                           {"WEIGHT_MAJOR", rank > 0},
                                                           {"LORA_MAJOR", 0},
                                                           {"HAS_BIAS", 1},
                                                           {"HAS_GATES", 1},
                                                           {"Element", element},
                                                           {"Weight", "smlora::weight::Plain"},
                                                           {"Gate", "float"},
                                                           {"Index", index32}}));
    }
    specs.push_back(spec("lora_gradient_reference", {{"E", 128},
                                                     {"WIDE", 2048},
                                                     {"RANK", 5},
                                                     {"RANK_STRIDE", 8},
                                                     {"ROWS", 0},
                                                     {"TOP_K", 8},
                                                     {"HAS_GATES", 1},
                                                     {"Element", element},
                                                     {"Output", "float"},
                                                     {"Gate", element},
                                                     {"Index", index64}}));
}

/// Every encoding with every type of scale that it may have.
void add_unpacking(std::vector<KernelSpec>& specs, const char* element, bool vector_rows) {
    struct Encoded {
        int encoding;  ///< as smlora::Encoding has it
        int block;
        const char* scale;
        int outer_block = 0;
        bool divides = false;
    };
    constexpr const char* byte = "smlora::byte";
    constexpr const char* e8m0 = "smlora::e8m0";
    constexpr const char* bf16 = "smlora::bf16";
    const Encoded all[] = {{1, 64, "float"},
                           {1, 64, byte, 256},
                           {2, 4096, "float"},
                           {3, 0, "float"},
                           {4, 32, byte},
                           {4, 32, e8m0},
                           {5, 128, "float"},
                           {5, 128, bf16},
                           {5, 128, e8m0},
                           {6, 32, byte},
                           {6, 32, e8m0},
                           {7, 16, "smlora::e4m3"},
                           {7, 16, "smlora::e4m3", 0, true},
                           {8, 32, bf16},
                           {8, 128, "smlora::fp16"},
                           {8, 32, "float"}};
    for (const Encoded& encoded : all) {
        specs.push_back(spec("unpack_weights", {{"ENCODING", encoded.encoding},
                                                {"ROWS", 1536},
                                                {"COLUMNS", 2048},
                                                {"BLOCK", encoded.block},
                                                {"PARTS", 2},
                                                {"VECTOR", vector_rows},
                                                {"DOUBLE", encoded.outer_block != 0},
                                                {"OUTER_BLOCK", encoded.outer_block},
                                                {"GLOBAL_DIVIDES", encoded.divides},
                                                {"ARRANGED", 0},
                                                {"Element", element},
                                                {"Scale", encoded.scale},
                                                {"Index", index32}}));
    }
}

std::vector<KernelSpec> variants_of(std::initializer_list<const char*> elements, std::string_view arch) {
    std::vector<KernelSpec> specs;
    add_routes(specs);
    for (const char* element : elements) {
        for (const bool vector_rows : {false, true}) {
            for (const bool flat : {false, true}) add_row_kernels(specs, element, vector_rows, flat);
            add_combine(specs, element, vector_rows);
            add_activation(specs, element, vector_rows);
            add_unpacking(specs, element, vector_rows);
            add_packing(specs, element, vector_rows, arch);
        }
        add_product_references(specs, element);
    }
    return specs;
}

void expect_compiled(const std::vector<KernelSpec>& specs, const char* arch_name) {
    const gpu::Arch arch = gpu::arch_from_name(arch_name);
    const Nvrtc& nvrtc = Nvrtc::instance();
    std::vector<std::string> complaints(specs.size());
    util::ThreadPool(0).parallel_for(static_cast<std::int64_t>(specs.size()), [&](std::int64_t i) {
        const auto at = static_cast<std::size_t>(i);
        try {
            const CompileRequest request = compile_request(specs[at], arch, nvrtc.version(), Templates::embedded());
            const ResourceUse resources = compile_kernel(request, nvrtc).resources;
            if (resources.spill_bytes() > 0) complaints[at] = "spills";
            if (resources.shared_bytes > 48 * 1024) complaints[at] = "needs more than 48 KiB of static shared memory";
        } catch (const std::exception& error) {
            complaints[at] = error.what();
        }
    });
    for (std::size_t i = 0; i < specs.size(); ++i) {
        EXPECT_EQ(complaints[i], "") << arch_name << ": " << readable(specs[i]);
    }
}

TEST(RowKernelsCompile, EveryVariantOfEveryType) {
    expect_compiled(variants_of({"smlora::bf16", "smlora::fp16", "float"}, "sm_90a"), "sm_90a");
}

TEST(RowKernelsCompile, TheOldestAndTheNewestArchitecture) {
    for (const char* arch : {"sm_80", "sm_120a"}) expect_compiled(variants_of({"smlora::fp16"}, arch), arch);
}

}  // namespace
}  // namespace smlora::jit
