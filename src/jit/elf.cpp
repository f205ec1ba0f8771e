#include "jit/elf.hpp"

#include "util/hash.hpp"

#include <elf.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <type_traits>
#include <vector>

namespace smlora::jit {
namespace {

// Records of a .nv.info.<kernel> section: format, attribute, 16-bit value or length of what follows. A parameter's
// record holds its index, its ordinal, its offset, and its size in the upper bits of the last word. (The record of all
// parameters' size, 0x19, counts the bytes before the first one too, which an alignment of 64 takes on some
// architectures.)
constexpr std::uint8_t format_sized = 4;
constexpr std::uint8_t attribute_parameter = 0x17;

struct ParameterRecord {
    std::uint32_t index;
    std::uint16_t ordinal;
    std::uint16_t offset;
    std::uint32_t size_and_space;
};
constexpr unsigned size_shift = 18;

constexpr std::uint16_t machine_cuda = EM_CUDA;

/// `T` at `offset`, or nothing beyond the end. A copy: nothing in a file is aligned for certain.
template <class T>
std::optional<T> read_at(std::string_view bytes, std::uint64_t offset) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) {
        return std::nullopt;
    }
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
}

std::optional<std::string_view> range(std::string_view bytes, std::uint64_t offset, std::uint64_t size) {
    if (offset > bytes.size() || bytes.size() - offset < size) {
        return std::nullopt;
    }
    return bytes.substr(offset, size);
}

std::string_view text_at(std::string_view table, std::uint64_t offset) {
    if (offset >= table.size()) {
        return {};
    }
    const std::string_view rest = table.substr(offset);
    return rest.substr(0, rest.find('\0'));
}

bool is_elf64(const Elf64_Ehdr& header) {
    return std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
           header.e_ident[EI_DATA] == ELFDATA2LSB;
}

/// The sections of an ELF file in memory.
class Sections {
 public:
    Sections(std::string_view bytes, const Elf64_Ehdr& header) : bytes_(bytes), header_(header) {
        if (const auto table = at(header.e_shstrndx)) {
            names_ = content(*table).value_or(std::string_view());
        }
    }

    [[nodiscard]] unsigned count() const { return header_.e_shnum; }
    [[nodiscard]] std::optional<Elf64_Shdr> at(unsigned index) const {
        if (index >= count() || header_.e_shentsize != sizeof(Elf64_Shdr)) {
            return std::nullopt;
        }
        // An offset near the end of the range must not wrap around.
        if (header_.e_shoff > bytes_.size()) {
            return std::nullopt;
        }
        return read_at<Elf64_Shdr>(bytes_, header_.e_shoff + std::uint64_t{index} * sizeof(Elf64_Shdr));
    }
    [[nodiscard]] std::optional<std::string_view> content(const Elf64_Shdr& section) const {
        return section.sh_type == SHT_NOBITS ? std::nullopt : range(bytes_, section.sh_offset, section.sh_size);
    }
    [[nodiscard]] std::string_view name(const Elf64_Shdr& section) const { return text_at(names_, section.sh_name); }
    [[nodiscard]] std::optional<std::string_view> content(std::string_view name) const {
        for (unsigned i = 0; i < count(); ++i) {
            const std::optional<Elf64_Shdr> section = at(i);
            if (section && text_at(names_, section->sh_name) == name) {
                return content(*section);
            }
        }
        return std::nullopt;
    }

 private:
    std::string_view bytes_;
    const Elf64_Ehdr& header_;
    std::string_view names_;
};

/// Whether a symbol table defines the function `symbol` with code inside the file.
bool defines_function(const Sections& sections, std::string_view symbol) {
    for (unsigned i = 0; i < sections.count(); ++i) {
        const std::optional<Elf64_Shdr> table = sections.at(i);
        if (!table || table->sh_type != SHT_SYMTAB) {
            continue;
        }
        const std::optional<std::string_view> symbols = sections.content(*table);
        const std::optional<Elf64_Shdr> names_section = sections.at(table->sh_link);
        const std::optional<std::string_view> names = names_section ? sections.content(*names_section) : std::nullopt;
        if (!symbols || !names) {
            continue;
        }
        for (std::uint64_t offset = 0; offset < symbols->size(); offset += sizeof(Elf64_Sym)) {
            const std::optional<Elf64_Sym> candidate = read_at<Elf64_Sym>(*symbols, offset);
            if (!candidate || ELF64_ST_TYPE(candidate->st_info) != STT_FUNC || candidate->st_size == 0 ||
                text_at(*names, candidate->st_name) != symbol) {
                continue;
            }
            const std::optional<Elf64_Shdr> code = sections.at(candidate->st_shndx);
            return code && code->sh_size >= candidate->st_size && sections.content(*code);
        }
    }
    return false;
}

std::optional<unsigned> args_bytes(std::string_view records) {
    for (std::uint64_t offset = 0; offset + 4 <= records.size();) {
        const auto format = static_cast<std::uint8_t>(records[offset]);
        const auto attribute = static_cast<std::uint8_t>(records[offset + 1]);
        const std::uint16_t value = *read_at<std::uint16_t>(records, offset + 2);
        offset += 4;
        if (format != format_sized) continue;
        const std::optional<ParameterRecord> parameter = read_at<ParameterRecord>(records, offset);
        if (attribute == attribute_parameter && parameter && parameter->ordinal == 0) {
            return parameter->size_and_space >> size_shift;
        }
        offset += value;
    }
    return std::nullopt;
}

std::string hexadecimal(std::string_view bytes) {
    std::string text;
    for (const char byte : bytes) {
        text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    }
    return text;
}

std::optional<std::string> read_range(std::ifstream& file, std::uint64_t offset, std::uint64_t size) {
    std::string bytes(size, '\0');
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(bytes.data(), static_cast<std::streamsize>(size));
    return file ? std::optional(std::move(bytes)) : std::nullopt;
}

std::optional<std::string> build_id_of_notes(std::string_view notes) {
    const auto aligned = [](std::uint64_t size) { return (size + 3) / 4 * 4; };
    for (std::uint64_t offset = 0; const auto note = read_at<Elf64_Nhdr>(notes, offset);) {
        const std::uint64_t name_at = offset + sizeof(Elf64_Nhdr);
        const std::uint64_t value_at = name_at + aligned(note->n_namesz);
        const std::optional<std::string_view> name = range(notes, name_at, note->n_namesz);
        const std::optional<std::string_view> value = range(notes, value_at, note->n_descsz);
        if (!name || !value) {
            return std::nullopt;
        }
        if (note->n_type == NT_GNU_BUILD_ID && *name == std::string_view("GNU", 4) && !value->empty()) {
            return hexadecimal(*value);
        }
        offset = value_at + aligned(note->n_descsz);
    }
    return std::nullopt;
}

/// Whether code reads constants at addresses: bank 4, which leads to what .nv.global holds. Static members of the
/// templates leave objects there that no code reads. An instruction takes 16 bytes; of its first eight, bits 9 to 11
/// tell in which form operands are given, 3 and 5 with one from a bank, whose number is in bits 54 to 58.
bool reads_addressed_constants(std::string_view code) {
    constexpr std::size_t instruction_bytes = 16;
    for (std::size_t at = 0; at + instruction_bytes <= code.size(); at += instruction_bytes) {
        const std::uint64_t word = *read_at<std::uint64_t>(code, at);
        const std::uint64_t form = word >> 9 & 7;
        if ((form == 3 || form == 5) && (word >> 54 & 31) == 4) return true;
    }
    return false;
}

}  // namespace

std::optional<std::string> elf_build_id(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::optional<std::string> bytes = read_range(file, 0, sizeof(Elf64_Ehdr));
    const std::optional<Elf64_Ehdr> header = bytes ? read_at<Elf64_Ehdr>(*bytes, 0) : std::nullopt;
    if (!header || !is_elf64(*header) || header->e_phentsize != sizeof(Elf64_Phdr)) {
        return std::nullopt;
    }
    const std::optional<std::string> segments =
        read_range(file, header->e_phoff, std::uint64_t{header->e_phnum} * sizeof(Elf64_Phdr));
    if (!segments) {
        return std::nullopt;
    }
    // Notes of a library are a few hundred bytes; more is not a library's.
    constexpr std::uint64_t most_notes = 1 << 20;
    for (unsigned i = 0; i < header->e_phnum; ++i) {
        const std::optional<Elf64_Phdr> segment = read_at<Elf64_Phdr>(*segments, i * sizeof(Elf64_Phdr));
        if (!segment || segment->p_type != PT_NOTE || segment->p_filesz > most_notes) {
            continue;
        }
        const std::optional<std::string> notes = read_range(file, segment->p_offset, segment->p_filesz);
        if (!notes) {
            return std::nullopt;
        }
        if (std::optional<std::string> id = build_id_of_notes(*notes)) {
            return id;
        }
    }
    return std::nullopt;
}

std::optional<CubinKernel> find_kernel(std::string_view cubin, std::string_view symbol, std::string& why) {
    const std::optional<Elf64_Ehdr> header = read_at<Elf64_Ehdr>(cubin, 0);
    if (!header || !is_elf64(*header) || header->e_machine != machine_cuda) {
        why = fmt::format("its {} bytes are not an ELF file for CUDA", cubin.size());
        return std::nullopt;
    }
    const Sections sections(cubin, *header);
    if (!defines_function(sections, symbol)) {
        why = fmt::format("it has no code for the kernel {}", symbol);
        return std::nullopt;
    }
    const std::optional<std::string_view> records = sections.content(fmt::format(".nv.info.{}", symbol));
    const std::optional<unsigned> bytes = records ? args_bytes(*records) : std::nullopt;
    if (!bytes) {
        why = fmt::format("it does not say how large the parameters of {} are", symbol);
        return std::nullopt;
    }
    return CubinKernel{*bytes};
}

std::optional<std::string> machine_code_digest(std::string_view cubin) {
    const std::optional<Elf64_Ehdr> header = read_at<Elf64_Ehdr>(cubin, 0);
    if (!header || !is_elf64(*header) || header->e_machine != machine_cuda) {
        return std::nullopt;
    }
    const Sections sections(cubin, *header);
    bool has_code = false;
    bool reads_addressed = false;
    for (unsigned i = 0; i < sections.count(); ++i) {
        const std::optional<Elf64_Shdr> section = sections.at(i);
        if (!section) {
            return std::nullopt;
        }
        if (!sections.name(*section).starts_with(".text.")) continue;
        has_code = true;
        reads_addressed =
            reads_addressed || reads_addressed_constants(sections.content(*section).value_or(std::string_view()));
    }
    if (!has_code) return std::nullopt;
    std::vector<std::string> parts;
    for (unsigned i = 0; i < sections.count(); ++i) {
        const std::optional<Elf64_Shdr> section = sections.at(i);
        // ".text.smlora_grouped_product_mma" and ".nv.shared.smlora_..": the kernel's name behind the kind.
        std::string_view kind = sections.name(*section);
        for (const std::string_view known : {".text.", ".nv.constant", ".nv.shared.", ".nv.local.", ".nv.global"}) {
            if (!kind.starts_with(known)) {
                continue;
            }
            kind = kind.substr(0, kind.find('.', known.size() - 1));
            if (!reads_addressed && (kind == ".nv.constant4" || kind.starts_with(".nv.global"))) continue;
            // The number of registers stands in the upper byte of what a code section calls its information.
            const std::string_view content = sections.content(*section).value_or(std::string_view());
            parts.push_back(util::FieldHasher()
                                .add("kind", kind)
                                .add("bytes", std::to_string(section->sh_size))
                                .add("registers", std::to_string(known == ".text." ? section->sh_info >> 24 : 0))
                                .add("content", content)
                                .hex());
        }
    }
    std::sort(parts.begin(), parts.end());
    util::FieldHasher hasher;
    for (const std::string& part : parts) {
        hasher.add("section", part);
    }
    return hasher.hex();
}

}  // namespace smlora::jit
