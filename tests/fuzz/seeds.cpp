// Writes the seeds: for each harness a folder of small inputs that its parser takes.
#include "harness.hpp"

#include "smlora_tune/archive.hpp"
#include "unit/cache/fixtures.hpp"
#include "unit/tuning/sample_tunings.hpp"

#include "cache/use_counts.hpp"
#include "jit/compiler_memo.hpp"
#include "jit/elf.hpp"
#include "tuning/bundle.hpp"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace smlora::fuzz {
namespace {

using namespace std::string_literals;

/// A cubin that defines the function "kernel" with parameters of 16 bytes.
std::string small_cubin() {
    const std::string names = "\0.names\0.symbols\0.text.kernel\0.nv.info.kernel\0kernel\0"s;
    const std::string code(16, '\x90');
    const std::string parameters = "\x04\x17\x0c\0\0\0\0\0\0\0\0\0\0\0\x40\0"s;
    Elf64_Sym symbols[2] = {};
    symbols[1].st_name = 46;
    symbols[1].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
    symbols[1].st_shndx = 3;
    symbols[1].st_size = code.size();
    const std::string table(reinterpret_cast<const char*>(symbols), sizeof symbols);

    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_machine = EM_CUDA;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shstrndx = 1;
    std::string body;
    std::string sections(sizeof(Elf64_Shdr), '\0');
    header.e_shnum = 1;
    const auto add = [&](Elf64_Word name, Elf64_Word type, Elf64_Word link, const std::string& content) {
        Elf64_Shdr section{};
        section.sh_name = name;
        section.sh_type = type;
        section.sh_link = link;
        section.sh_offset = sizeof header + body.size();
        section.sh_size = content.size();
        body += content;
        sections.append(reinterpret_cast<const char*>(&section), sizeof section);
        ++header.e_shnum;
    };
    add(1, SHT_STRTAB, 0, names);
    add(8, SHT_SYMTAB, 1, table);
    add(17, SHT_PROGBITS, 0, code);
    add(30, SHT_PROGBITS, 0, parameters);
    header.e_shoff = sizeof header + body.size();
    return std::string(reinterpret_cast<const char*>(&header), sizeof header) + body + sections;
}

std::vector<std::string> kernel_entries() {
    cache::KernelEntry entry = testing::sample_entry(1);
    const std::string fake = cache::encode_for(testing::sample_key(1), entry);
    entry.cubin = small_cubin();
    std::string why;
    require(jit::find_kernel(entry.cubin, "kernel", why).has_value(), "the seed has a kernel", why);
    return {fake, cache::encode_for(testing::sample_key(1), entry)};
}

std::vector<tuning::Record> records() {
    using namespace tuning::testing;
    tuning::Record record{sample_name(), {condensed_tuning("forward")}};
    record.tunings[0].trials.resize(2);
    return {record, {sample_name(3), {sample_tuning("dx", 0, false)}}};
}

std::vector<std::string> tuning_records() {
    std::vector<std::string> texts;
    for (const tuning::Record& record : records()) texts.push_back(tuning::record_text(record));
    return texts;
}

std::vector<std::string> bundles() { return {tuning::bundle_text("NVIDIA H200", records())}; }

/// A member of a tar that is not packed, in which a fuzzer finds its way.
std::string tar_member(const std::string& path, const std::string& bytes) {
    constexpr std::size_t block = 512;
    std::string header = path;
    const auto put = [&](std::size_t at, const std::string& text) {
        header.resize(std::max(header.size(), at + text.size()));
        header.replace(at, text.size(), text);
    };
    put(100, "0000600");
    put(124, fmt::format("{:011o}", bytes.size()));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    const unsigned sum = std::accumulate(header.begin(), header.end(), 0U, [](unsigned all, char byte) {
        return all + static_cast<unsigned char>(byte);
    });
    put(148, fmt::format("{:06o}", sum) + '\0');
    header.resize(block);
    std::string content = bytes;
    content.resize((bytes.size() + block - 1) / block * block);
    return header + content;
}

std::vector<std::string> archives(const std::filesystem::path& folder) {
    const std::filesystem::path file = folder / "archive.tar.gz";
    const std::string key = testing::sample_key(1);
    const std::string path = "kernels/" + key.substr(0, 2) + "/" + key;
    const std::string entry = kernel_entries()[0];
    tool::write_archive(file, {{path, entry}});
    const std::string packed = testing::contents_of(file);
    std::filesystem::remove(file);
    const nlohmann::json manifest{
        {"format", 1}, {"files", {{{"path", path}, {"bytes", entry.size()}, {"xxh128", util::xxh128_hex(entry)}}}}};
    return {packed, tar_member("manifest.json", manifest.dump()) + tar_member(path, entry) + std::string(1024, '\0')};
}

std::vector<std::string> hf_configs() {
    const std::string shape =
        R"("hidden_size": 64, "moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2)";
    const auto quantised = [&](const std::string& how) {
        return R"({"model_type": "qwen3_moe", )" + shape + R"(, "quantization_config": )" + how + "}";
    };
    return {
        R"({"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 32, "num_local_experts": 8,
            "num_experts_per_tok": 2, "torch_dtype": "bfloat16", "hidden_act": "gelu"})",
        R"({"model_type": "gpt_oss", "text_config": {"n_routed_experts": 4, "intermediate_size": 32, "hidden_size": 8,
            "num_experts_per_tok": 1, "dtype": "float16"}})",
        quantised(R"({"load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true})"),
        quantised(R"({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.0.mlp.experts", "lm_head"]})"),
        quantised(R"({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"})"),
        quantised(R"({"quant_method": "fp8", "weight_block_size": null, "expert_dtype": "fp8"})"),
        quantised(R"({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"0": {
            "targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32,
            "symmetric": true}}}})"),
        quantised(R"({"quant_method": "compressed-tensors", "config_groups": {"0": {"format": "float-quantized",
            "targets": ["mlp.experts"], "weights": {"strategy": "block", "block_structure": [64, 64]}}}})"),
        quantised(R"({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["experts"]})"),
        quantised(R"({"quant_method": "torchao", "quant_type": {"default": {"_type": "FqnToConfig", "_data": {
            "fqn_to_config": {"experts": {"_type": "MXConfig", "_data": {"weight_dtype": {"_data": "float8_e4m3fn"}}},
            "_default": null}}}}})"),
    };
}

std::vector<std::string> compiler_notes() {
    const std::string identity = "build-id:65be0db342ad51a06876e71e210bccc5aa8322cf";
    return {jit::encode_compiler_notes({{identity, {13, 0, 88}}, {"file:" + testing::sample_key(2), {12, 9, 1}}})};
}

void write(const std::filesystem::path& folder, const std::vector<std::string>& seeds) {
    std::filesystem::remove_all(folder);
    for (std::size_t i = 0; i < seeds.size(); ++i) testing::write_file(folder / std::to_string(i), seeds[i]);
}

}  // namespace
}  // namespace smlora::fuzz

int main(int argc, char** argv) {
    using namespace smlora::fuzz;
    require(argc == 2, "the argument is the folder to write to");
    const std::filesystem::path folder = argv[1];
    std::filesystem::create_directories(folder);
    write(folder / "archive", archives(folder));
    write(folder / "bundle", bundles());
    write(folder / "compiler_notes", compiler_notes());
    write(folder / "hf_config", hf_configs());
    write(folder / "kernel_entry", kernel_entries());
    write(folder / "tuning_record", tuning_records());
    write(folder / "use_counts",
          {smlora::cache::encode_use_counts({3, 1, 0}) + smlora::cache::encode_use_counts({120, 0, 4294967296})});
}
