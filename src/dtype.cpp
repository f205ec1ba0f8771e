#include "describe.hpp"

#include <smlora/dtype.hpp>
#include <smlora/error.hpp>

#include <fmt/format.h>

#include <array>

namespace smlora {
namespace {

struct Entry {
    DType dtype;
    std::size_t size;
    std::string_view name;
};

// In the order of the enumeration.
constexpr std::array<Entry, 10> table{{
    {DType::bf16, 2, "bf16"},
    {DType::fp16, 2, "fp16"},
    {DType::fp32, 4, "fp32"},
    {DType::fp64, 8, "fp64"},
    {DType::int32, 4, "int32"},
    {DType::int64, 8, "int64"},
    {DType::uint8, 1, "uint8"},
    {DType::int8, 1, "int8"},
    {DType::e4m3, 1, "e4m3"},
    {DType::e8m0, 1, "e8m0"},
}};

struct Alias {
    std::string_view text;
    DType dtype;
};

constexpr std::array<Alias, 7> aliases{{
    {"bfloat16", DType::bf16},
    {"float16", DType::fp16},
    {"half", DType::fp16},
    {"float32", DType::fp32},
    {"float", DType::fp32},
    {"float64", DType::fp64},
    {"double", DType::fp64},
}};

const Entry& entry(DType dtype) {
    // The C interface passes integers through, so any value may come.
    const auto index = static_cast<std::size_t>(dtype);
    if (index >= table.size()) {
        throw Error(ErrorCode::invalid_argument, fmt::format("dtype: expected a value from 0 to {}, got {}",
                                                             table.size() - 1, static_cast<std::int32_t>(dtype)));
    }
    return table[index];
}

}  // namespace

std::size_t size_of(DType dtype) { return entry(dtype).size; }

std::string_view name(DType dtype) { return entry(dtype).name; }

std::string describe(DType dtype) {
    const auto index = static_cast<std::size_t>(dtype);
    if (index >= table.size()) return fmt::format("the value {}", static_cast<std::int32_t>(dtype));
    return std::string(table[index].name);
}

DType dtype_from_name(std::string_view text) {
    for (const Entry& e : table) {
        if (e.name == text) return e.dtype;
    }
    for (const Alias& a : aliases) {
        if (a.text == text) return a.dtype;
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("dtype: expected bf16, fp16, fp32, fp64, int32 or int64, got \"{}\"", text));
}

}  // namespace smlora
