// The golden vectors of tests/golden: what bitsandbytes, Transformers, torchao and compressed-tensors decode their
// weights to, bit by bit, on each backend.
#include "support/backend.hpp"

#include <smlora/memory.hpp>
#include <smlora/weight.hpp>

#include <nlohmann/json.hpp>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <list>
#include <map>
#include <vector>

namespace smlora::test {
namespace {

using nlohmann::json;
using Bytes = std::vector<char>;

const std::filesystem::path folder = SMLORA_GOLDEN_FOLDER;

Bytes read(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

DType dtype_of(const std::string& name) {
    static const std::map<std::string, DType> types{
        {"U8", DType::uint8}, {"I8", DType::int8},   {"I32", DType::int32},    {"F32", DType::fp32},
        {"F16", DType::fp16}, {"BF16", DType::bf16}, {"F8_E4M3", DType::e4m3}, {"F8_E8M0", DType::e8m0}};
    return types.at(name);
}

/// The tensors of a safetensors file, by the parts that they play: views of `bytes`, each of which begins at a multiple
/// of its element.
std::map<std::string, Tensor> tensors_of(const json& roles, const Bytes& bytes, std::list<Bytes>& memory) {
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    const char* const begin = bytes.data() + sizeof header;
    const json names = json::parse(begin, begin + header);
    std::map<std::string, Tensor> tensors;
    for (const auto& [role, name] : roles.items()) {
        const json& entry = names.at(name.get<std::string>());
        const char* const data = begin + header;
        const Bytes& own = memory.emplace_back(data + entry["data_offsets"][0].get<std::size_t>(),
                                               data + entry["data_offsets"][1].get<std::size_t>());
        Tensor& tensor = tensors[role];
        tensor.data = const_cast<char*>(own.data());
        tensor.dtype = dtype_of(entry["dtype"]);
        std::int64_t stride = 1;
        tensor.ndim = static_cast<std::int32_t>(entry["shape"].size());
        for (auto i = static_cast<std::size_t>(tensor.ndim); i-- > 0;) {
            tensor.shape[i] = entry["shape"][i];
            tensor.strides[i] = stride;
            stride *= tensor.shape[i];
        }
    }
    return tensors;
}

/// An engine's copy of what is given.
class Placed {
 public:
    explicit Placed(const Engine& engine) : engine_(engine) {}

    Tensor operator()(Tensor tensor) {
        if (!tensor.given()) return tensor;
        const std::size_t bytes = static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype);
        buffers_.emplace_back(engine_, bytes).copy_from_host(tensor.data, bytes);
        tensor.data = buffers_.back().data();
        return tensor;
    }

 private:
    const Engine& engine_;
    std::list<Buffer> buffers_;
};

Weight weight_of(const json& file, std::map<std::string, Tensor>& tensors, Placed& placed) {
    Weight weight;
    weight.encoding = encoding_from_name(file["encoding"].get<std::string>());
    weight.E = file["shape"][0];
    weight.rows = file["shape"][1];
    weight.columns = file["shape"][2];
    weight.block = file["block"];
    weight.parts = file["parts"];
    weight.codes = placed(tensors["codes"]);
    weight.scales = placed(tensors["scales"]);
    weight.table = placed(tensors["table"]);
    weight.double_quantization = {placed(tensors["double.scales"]), placed(tensors["double.table"]),
                                  placed(tensors["double.offset"]), file.value("double_block", 0)};
    weight.global_scales = placed(tensors["global_scales"]);
    if (file.value("global_scale", "") == "divisor") weight.global_scale = GlobalScale::divisor;
    return weight;
}

/// Bits of one element; any NaN is one NaN. Zero is one zero if `unsigned_zero`.
std::uint32_t bits_of(const char* data, DType dtype, bool unsigned_zero) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, data, size_of(dtype));
    const std::uint32_t sign = dtype == DType::fp32 ? 0x80000000U : 0x8000U;
    const std::uint32_t infinity = dtype == DType::fp32 ? 0x7f800000U : dtype == DType::bf16 ? 0x7f80U : 0x7c00U;
    if ((bits & ~sign) > infinity) return infinity + 1;
    return unsigned_zero && bits == sign ? 0 : bits;
}

class Golden : public OnEachBackend {};

TEST_P(Golden, BitsAreThoseOfTheLibraryThatMadeTheWeight) {
    const Bytes text = read(folder / "index.json");
    const json index = json::parse(text.begin(), text.end());
    int compared = 0;
    for (const json& file : index["files"]) {
        // torchao's int8, which is not divided by 127, is no encoding here.
        if (file.value("row_divisor", 127) != 127) continue;
        const std::string name = file["file"];
        SCOPED_TRACE(name);
        std::list<Bytes> memory;
        auto tensors = tensors_of(file["tensors"], read(folder / name), memory);
        Placed placed(engine());
        const Weight weight = weight_of(file, tensors, placed);
        for (const char* type : {"f32", "bf16", "f16"}) {
            if (!tensors.contains(type)) continue;
            const Tensor expected = tensors[type];
            const std::size_t size = size_of(expected.dtype);
            Bytes out(static_cast<std::size_t>(expected.numel()) * size);
            Buffer memory_of_out(engine(), out.size());
            memory_of_out.fill(0xFF);
            dequantize(engine(), {},
                       {weight, {memory_of_out.data(), expected.dtype, {weight.E, weight.rows, weight.columns}}});
            synchronize(engine(), {});
            memory_of_out.copy_to_host(out.data(), out.size());
            // bitsandbytes' own kernels differ in the sign of fp4's zero.
            const bool unsigned_zero = weight.encoding == Encoding::fp4;
            for (std::size_t i = 0; i < out.size(); i += size) {
                ASSERT_EQ(bits_of(out.data() + i, expected.dtype, unsigned_zero),
                          bits_of(static_cast<const char*>(expected.data) + i, expected.dtype, unsigned_zero))
                    << type << " element " << i / size;
            }
            ++compared;
        }
    }
    EXPECT_GE(compared, 60);
}

SMLORA_ON_EACH_BACKEND(Backends, Golden);

}  // namespace
}  // namespace smlora::test
