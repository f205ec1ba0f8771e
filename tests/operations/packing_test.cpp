// Adapters packed for the products: bit by bit what the formula of PackAdapterArgs says, from every layout, whichever
// dimension the kernel is told to be the fastest, and with grids of any size.
#include "operations/cases.hpp"
#include "support/projection.hpp"

#include "engine/cuda_call.hpp"
#include "families/pack.hpp"

#include <smlora/memory.hpp>

#include <fmt/format.h>

#include <array>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace smlora::test {
namespace {

using families::Fastest;
using families::PackWork;
using plan::Role;

/// B [E, N, R], or A [E, R, K] with K = N, with strides of E, outer and inner.
struct PackCase {
    std::string name;
    bool is_a = false;
    std::int64_t E, N, R;
    std::array<std::int64_t, 3> strides;
    std::optional<Fastest> fastest = {};  ///< that of the strides; none: the products read it as it lies
    bool vectors = false;
    std::int64_t shift = 0;
    DType source = DType::fp32;
    DType element = DType::bf16;

    friend std::ostream& operator<<(std::ostream& out, const PackCase& c) { return out << c.name; }
};

class Packed : public BackendFixture, public testing::WithParamInterface<PackCase> {
 protected:
    void SetUp() override {
        use(Backend::cuda);
        if (IsSkipped()) return;
        const PackCase& c = GetParam();
        problem_ = shape(c.E, c.is_a ? c.N : 64, c.is_a ? 64 : c.N, c.R, 2, c.element);
        problem_.adapter_dtype = c.source;
        const std::int64_t padded = padded_rank(problem_);
        const std::int64_t outer = c.is_a ? c.R : c.N, inner = c.is_a ? c.N : c.R;
        const auto [e, o, i] = c.strides;
        source_ = Array(engine(), c.source, {{c.E, outer, inner}, {e, o, i}, c.shift});
        const Random random = fresh("adapter");
        // Of where it lies: with a stride of 0 several elements are one.
        const auto value = [&, e = e, o = o, i = i](std::int64_t at) {
            const std::int64_t offset = at / (outer * inner) * e + at / inner % outer * o + at % inner * i;
            return random.normal(static_cast<std::uint64_t>(offset));
        };
        source_.fill(value);
        const std::int64_t rows = c.is_a ? padded : outer, width = c.is_a ? inner : padded;
        expected_ = Array(engine(), c.element, {{c.E, rows, width}});
        expected_.fill([&](std::int64_t at) {
            const std::int64_t row = at / width % rows, column = at % width;
            if (row >= outer || column >= inner) return 0.0;
            return source_.at((at / (rows * width) * outer + row) * inner + column);
        });
    }

    [[nodiscard]] std::optional<PackWork> work() const {
        const Tensor view = source_.view();
        const bool a = GetParam().is_a;
        const families::Packing packing =
            families::packing_of(problem_, a ? view : Tensor{}, a ? Tensor{} : view, true);
        return a ? packing.a : packing.b;
    }

    /// With `blocks` blocks; 0: as many as an operation launches.
    void expect_packed(const PackWork& work, unsigned blocks) const {
        SCOPED_TRACE(
            fmt::format("fastest {}, vectors {}, {} blocks", static_cast<int>(work.fastest), work.vectors, blocks));
        const bool a = GetParam().is_a;
        engine::CudaCall call(engine(), {});
        plan::Plan plan;
        const Role role = a ? Role::pack_a : Role::pack_b;
        plan.set(role, a ? families::pack_a_step(problem_, work, call.facts())
                         : families::pack_b_step(problem_, work, call.facts()));
        call.load(plan);
        Array packed(engine(), problem_.dtype, expected_.layout());
        const Tensor view = source_.view();
        void* const memory = packed.view().data;
        const families::Step* const step = plan.find(role);
        if (blocks > 0) {
            call.launcher().launch_grid(
                *step, blocks, 1,
                PackAdapterArgs{view.data, view.strides[0], view.strides[1], view.strides[2], memory});
        } else if (a) {
            static_cast<void>(families::adapter_a(call.launcher(), step, problem_, view, memory));
        } else {
            static_cast<void>(families::adapter_b(call.launcher(), step, problem_, view, memory));
        }
        synchronize(engine(), {});
        packed.download();
        EXPECT_TRUE(packed.same_bits(expected_));
        EXPECT_TRUE(packed.untouched_outside());
    }

 private:
    Problem problem_;
    Array source_, expected_;
};

TEST_P(Packed, HasTheBitsOfTheFormula) {
    const std::optional<PackWork> chosen = work();
    ASSERT_TRUE(chosen.has_value());
    EXPECT_EQ(static_cast<int>(chosen->fastest), static_cast<int>(*GetParam().fastest));
    EXPECT_EQ(chosen->vectors, GetParam().vectors);
    for (const unsigned blocks : {0U, 1U, 3U}) expect_packed(*chosen, blocks);
}

TEST_P(Packed, WhicheverDimensionIsCalledTheFastest) {
    for (const Fastest fastest : {Fastest::inner, Fastest::outer, Fastest::expert}) expect_packed({fastest, false}, 3);
}

std::vector<PackCase> pack_cases() {
    using enum Fastest;
    using enum DType;
    return {
        // Contiguous. Tiles of 3200 elements, of which the last 32 threads have none; then one matrix in one tile.
        {.name = "A",
         .is_a = true,
         .E = 3,
         .N = 600,
         .R = 16,
         .strides = {9600, 600, 1},
         .fastest = inner,
         .vectors = true},
        {.name = "A_R17",
         .is_a = true,
         .E = 2,
         .N = 344,
         .R = 17,
         .strides = {5848, 344, 1},
         .fastest = inner,
         .vectors = true},
        {.name = "A_R1",
         .is_a = true,
         .E = 2,
         .N = 64,
         .R = 1,
         .strides = {64, 64, 1},
         .fastest = inner,
         .vectors = true},
        {.name = "A_odd", .is_a = true, .E = 2, .N = 531, .R = 9, .strides = {4779, 531, 1}, .fastest = inner},
        {.name = "A_shifted",
         .is_a = true,
         .E = 2,
         .N = 64,
         .R = 8,
         .strides = {512, 64, 1},
         .fastest = inner,
         .shift = 1},
        {.name = "A_rows_apart", .is_a = true, .E = 2, .N = 64, .R = 8, .strides = {528, 66, 1}, .fastest = inner},
        {.name = "A_experts_apart", .is_a = true, .E = 2, .N = 64, .R = 8, .strides = {513, 64, 1}, .fastest = inner},
        {.name = "B", .E = 3, .N = 520, .R = 16, .strides = {8320, 16, 1}, .fastest = inner, .vectors = true},
        {.name = "B_R12", .E = 3, .N = 70, .R = 12, .strides = {840, 12, 1}, .fastest = inner, .vectors = true},
        {.name = "B_R3", .E = 3, .N = 70, .R = 3, .strides = {210, 3, 1}, .fastest = inner},
        {.name = "B_R1", .E = 3, .N = 531, .R = 1, .strides = {531, 1, 1}, .fastest = outer, .vectors = true},
        {.name = "B_R256", .E = 1, .N = 33, .R = 256, .strides = {8448, 256, 1}, .fastest = inner, .vectors = true},
        {.name = "B_expert_major", .E = 5, .N = 90, .R = 8, .strides = {8, 40, 1}, .fastest = inner, .vectors = true},
        // PEFT's, and its adapter of a module with in and out swapped.
        {.name = "B_peft", .E = 64, .N = 40, .R = 16, .strides = {1, 1024, 64}, .fastest = expert, .vectors = true},
        {.name = "B_peft_E40", .E = 40, .N = 53, .R = 17, .strides = {1, 680, 40}, .fastest = expert, .vectors = true},
        {.name = "B_peft_E5", .E = 5, .N = 530, .R = 3, .strides = {1, 15, 5}, .fastest = expert, .vectors = true},
        {.name = "B_peft_E1", .E = 1, .N = 90, .R = 8, .strides = {1, 8, 1}, .fastest = inner, .vectors = false},
        {.name = "A_swapped",
         .is_a = true,
         .E = 33,
         .N = 136,
         .R = 9,
         .strides = {1, 33, 297},
         .fastest = expert,
         .vectors = true},
        {.name = "A_swapped_odd", .is_a = true, .E = 7, .N = 53, .R = 5, .strides = {1, 7, 35}, .fastest = expert},
        {.name = "B_swapped", .E = 3, .N = 600, .R = 16, .strides = {9600, 1, 600}, .fastest = outer, .vectors = true},
        {.name = "B_swapped_R24",
         .E = 2,
         .N = 531,
         .R = 24,
         .strides = {12744, 1, 531},
         .fastest = outer,
         .vectors = true,
         .shift = 3},
        {.name = "A_outer",
         .is_a = true,
         .E = 2,
         .N = 600,
         .R = 12,
         .strides = {12, 1, 24},
         .fastest = outer,
         .vectors = true},
        {.name = "A_outer_odd", .is_a = true, .E = 2, .N = 531, .R = 3, .strides = {1593, 1, 3}, .fastest = outer},
        // One matrix for all experts, one row, one column.
        {.name = "A_shared",
         .is_a = true,
         .E = 4,
         .N = 64,
         .R = 8,
         .strides = {0, 64, 1},
         .fastest = inner,
         .vectors = true},
        {.name = "A_one_column",
         .is_a = true,
         .E = 4,
         .N = 64,
         .R = 8,
         .strides = {8, 1, 0},
         .fastest = outer,
         .vectors = true},
        {.name = "A_one_number", .is_a = true, .E = 2, .N = 64, .R = 8, .strides = {0, 0, 0}, .fastest = inner},
        {.name = "A_K1", .is_a = true, .E = 3, .N = 1, .R = 8, .strides = {8, 1, 1}, .fastest = outer},
        // Other types.
        {.name = "A_bf16_R4",
         .is_a = true,
         .E = 3,
         .N = 1032,
         .R = 4,
         .strides = {4128, 1032, 1},
         .fastest = inner,
         .vectors = true,
         .source = bf16},
        {.name = "B_bf16_R4", .E = 3, .N = 90, .R = 4, .strides = {360, 4, 1}, .fastest = inner, .source = bf16},
        {.name = "B_fp16_peft",
         .E = 34,
         .N = 40,
         .R = 16,
         .strides = {1, 544, 34},
         .fastest = expert,
         .vectors = true,
         .source = fp16,
         .element = fp16},
        {.name = "B_fp32_to_fp16",
         .E = 3,
         .N = 90,
         .R = 16,
         .strides = {1440, 16, 1},
         .fastest = inner,
         .vectors = true,
         .element = fp16},
        {.name = "B_fp32_peft",
         .E = 34,
         .N = 40,
         .R = 12,
         .strides = {1, 408, 34},
         .fastest = expert,
         .vectors = true,
         .element = fp32},
        {.name = "A_fp32_outer",
         .is_a = true,
         .E = 2,
         .N = 134,
         .R = 40,
         .strides = {40, 1, 80},
         .fastest = outer,
         .element = fp32},
    };
}

INSTANTIATE_TEST_SUITE_P(Layouts, Packed, testing::ValuesIn(pack_cases()),
                         [](const auto& case_info) { return case_info.param.name; });

}  // namespace
}  // namespace smlora::test
