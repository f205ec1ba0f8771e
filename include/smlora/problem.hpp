// What is computed: one projection of a Mixture-of-Experts layer with its LoRA adapter.
#pragma once

#include <smlora/dtype.hpp>
#include <smlora/encoding.hpp>
#include <smlora/export.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace smlora {

/// How the rows of one side of a projection lie in memory. Sorted position i holds the flat entry
/// f = sorted_scattered_idxs[i] = t * top_k + j: token t, choice j.
enum class RowOrder : std::int32_t {
    token = 0,      ///< [T, *]: row t, shared by the top_k entries of a token. As an output: summed over them in fp32,
                    ///< in the order of j, each times its gate if gates are given.
    scattered = 1,  ///< [M, *]: row f, M = T * top_k
    grouped = 2,    ///< [M, *]: row i, that is, sorted by expert
};

/// How W is stored.
enum class WeightLayout : std::int32_t {
    ekn = 0,  ///< [E, K, N], N contiguous
    enk = 1,  ///< [E, N, K], K contiguous: what Hugging Face stores
};

/// "token", "scattered", "grouped".
[[nodiscard]] SMLORA_API std::string_view name(RowOrder order);
/// "ekn", "enk".
[[nodiscard]] SMLORA_API std::string_view name(WeightLayout layout);

/// Everything about a projection that its kernels are specialised for. T, the number of tokens, is a run-time value.
struct Problem {
    std::int64_t E = 0;      ///< experts, 1 to 1024
    std::int64_t K = 0;      ///< inputs, >= 1
    std::int64_t N = 0;      ///< outputs, >= 1
    std::int64_t R = 0;      ///< LoRA rank, 1 to 256; 0: no adapter, the base product alone
    std::int64_t top_k = 1;  ///< experts of a token, 1 to 64

    DType dtype = DType::bf16;          ///< of x, W, y, bias, xa, yb: bf16, fp16, fp32; fp64 on the CPU backend
    DType adapter_dtype = DType::bf16;  ///< of A, B, dA, dB: `dtype` or fp32
    DType gate_dtype = DType::fp32;     ///< of gates and dgates: `dtype` or fp32
    DType index_dtype = DType::int32;   ///< of the routing's arrays: int32 or int64

    WeightLayout weight_layout = WeightLayout::ekn;  ///< of W
    WeightFormat weights = {};                       ///< of W; quantised only with dtype bf16, fp16 or fp32
    RowOrder x_rows = RowOrder::token;               ///< of x and dx
    RowOrder y_rows = RowOrder::scattered;           ///< of y and dy
    bool bias = false;                               ///< b [E, N] is added to y
    bool gates = false;  ///< gates [T, top_k] scale the rows of y; only with y_rows == token

    /// Member by member.
    friend bool operator==(const Problem&, const Problem&) = default;
};

/// Throws Error{invalid_argument} that names the field, its value and what was expected.
SMLORA_API void validate(const Problem& problem);

/// The row stride, in elements, of xa [M, R] and yb [M, R]: R rounded up to 8, so that every row is 16-byte aligned in
/// 16-bit types. The columns from R to the stride are written as zero.
[[nodiscard]] constexpr std::int64_t padded_rank(const Problem& problem) { return (problem.R + 7) / 8 * 8; }

/// "E128 K2048 N1536 R16 k8 bf16 ekn token->scattered"; with quantised weights " weights: nf4 block 64" at the end.
[[nodiscard]] SMLORA_API std::string to_string(const Problem& problem);

}  // namespace smlora
