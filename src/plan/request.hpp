// What differs between calls of one problem and decides which kernels fit: for each operation what its kernels depend
// on, and no more.
#pragma once

#include "families/pack.hpp"
#include "families/rows.hpp"
#include "families/unpack.hpp"

#include <smlora/dtype.hpp>
#include <smlora/problem.hpp>

#include <cstdint>
#include <optional>
#include <variant>

namespace smlora::plan {

struct Route {
    DType input_index = DType::int32;  ///< of top_idx

    friend bool operator==(const Route&, const Route&) = default;
};

struct Group {
    families::RowShape rows;
    bool gated = false;

    friend bool operator==(const Group&, const Group&) = default;
};

struct Combine {
    families::RowShape rows;
    bool gated = false;

    friend bool operator==(const Combine&, const Combine&) = default;
};

struct CombineBackward {
    families::RowShape rows;
    bool gated = false;
    bool wants_dy = false;
    bool wants_dgates = false;

    friend bool operator==(const CombineBackward&, const CombineBackward&) = default;
};

/// How quantised weights become plain ones, which a product reads.
struct Unpack {
    families::UnpackWork work;
    std::int64_t slice = 0;  ///< experts at once; 0: all, in one launch of the product

    friend bool operator==(const Unpack&, const Unpack&) = default;
};

/// In slices of the experts whose matrices fit `limit` bytes.
[[nodiscard]] Unpack unpack_request(const Problem& problem, const families::UnpackWork& work, std::uint64_t limit);

struct Forward {
    std::uint8_t bucket = 0;    ///< of T, see tuning/bucket.hpp
    bool tensor_cores = false;  ///< 16-bit types with every row 16-byte aligned
    bool vector_rows = false;   ///< rows of y 16-byte aligned
    families::Packing packing;
    std::optional<Unpack> unpack = {};  ///< of quantised weights
    bool packed = false;                ///< whose codes a product may multiply, instead of unpacking them

    friend bool operator==(const Forward&, const Forward&) = default;
};

struct BackwardInput {
    /// What becomes of the gates.
    enum class Gates : std::uint8_t {
        applied,         ///< to dx, if there are any
        differentiated,  ///< and applied: their gradient is wanted, too
        left_out         ///< dx is that before them
    };

    std::uint8_t bucket = 0;
    bool tensor_cores = false;
    bool vector_rows = false;  ///< rows of dx, and of x if dgates are wanted, 16-byte aligned
    bool vector_bias = false;  ///< the bias and the rows of dy, if dgates need them, 16-byte aligned
    Gates gates = Gates::applied;
    families::Packing packing;
    std::optional<Unpack> unpack = {};
    bool packed = false;

    friend bool operator==(const BackwardInput&, const BackwardInput&) = default;
};

struct BackwardLora {
    std::uint8_t bucket = 0;
    bool tensor_cores = false;
    bool wants_da = false;
    bool wants_db = false;
    bool needs_xa = false;  ///< computed by this call
    bool needs_yb = false;
    families::Packing packing;

    friend bool operator==(const BackwardLora&, const BackwardLora&) = default;
};

struct GatedActivation {
    families::RowShape rows;  ///< of a
    families::ActivationWork work;

    friend bool operator==(const GatedActivation&, const GatedActivation&) = default;
};

struct Dequantize {
    families::UnpackWork work;

    friend bool operator==(const Dequantize&, const Dequantize&) = default;
};

struct ArrangeScales {
    families::ArrangeWork work;

    friend bool operator==(const ArrangeScales&, const ArrangeScales&) = default;
};

using Request = std::variant<Forward, BackwardInput, BackwardLora, Route, Group, Combine, CombineBackward,
                             GatedActivation, Dequantize, ArrangeScales>;

/// Null for plain weights and for operations without any.
[[nodiscard]] const Unpack* unpack_of(const Request& request);

/// Whether a product may multiply the codes of quantised weights.
[[nodiscard]] bool packed(const Request& request);

/// Experts whose weights are unpacked before a launch of the product.
[[nodiscard]] std::int64_t experts_at_once(const Problem& problem, const Unpack& unpack);

/// The same with weights that are plain already: what products of unpacked weights are chosen by.
[[nodiscard]] Request with_plain_weights(Request request);
[[nodiscard]] Problem with_plain_weights(Problem problem);

/// The bucket of T; 0 for operations without one.
[[nodiscard]] std::uint8_t bucket(const Request& request);

/// Of operations that have one.
void set_bucket(Request& request, std::uint8_t bucket);

/// False for operations that have no kernels on tensor cores.
[[nodiscard]] bool on_tensor_cores(const Request& request);

}  // namespace smlora::plan
