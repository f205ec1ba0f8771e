// What a kernel is before it is compiled: a template and its constants.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace smlora::jit {

/// A compile-time constant of a specialisation.
struct Constant {
    enum class Kind { integer, type };

    std::string name;
    Kind kind = Kind::integer;
    std::int64_t integer = 0;  ///< static constexpr long long or int, as the value needs
    std::string type;          ///< a type of the templates: "smlora::bf16"

    Constant(std::string name_, std::int64_t value) : name(std::move(name_)), integer(value) {}
    Constant(std::string name_, std::string type_) : name(std::move(name_)), kind(Kind::type), type(std::move(type_)) {}
    friend bool operator==(const Constant&, const Constant&) = default;
};

/// A specialisation of kernel_templates/<family>.cuh. The template declares, in namespace smlora::<family>, the plain
/// struct Args and `template <class C> __device__ void run(const Args& args)`; C is generated from `constants`.
struct KernelSpec {
    std::string family;
    std::vector<Constant> constants;
    unsigned threads = 128;       ///< a block's, its launch bound
    unsigned min_blocks = 1;      ///< blocks a multiprocessor that the register allocation must allow
    unsigned dynamic_shared = 0;  ///< bytes
    unsigned cluster = 1;         ///< blocks of a cluster; the grid is a multiple of it

    friend bool operator==(const KernelSpec&, const KernelSpec&) = default;
};

/// "smlora_<family>", the extern "C" symbol.
[[nodiscard]] std::string symbol(const KernelSpec& spec);

/// One line for people: the family and the constants, "grouped_product E=128 RED=2048 ..".
[[nodiscard]] std::string readable(const KernelSpec& spec);

/// The generated source: one #include, one struct of constants, one kernel; nothing else.
[[nodiscard]] std::string source(const KernelSpec& spec);

}  // namespace smlora::jit
