// The inner loops for every instruction set that this machine has, against naive loops.
#include "cpu/isa/kernels.hpp"

#include "cpu/tile.hpp"
#include "support/backend.hpp"
#include "workload/array.hpp"
#include "workload/comparison.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace smlora::test {
namespace {

/// A factor over random memory, and its elements in fp64.
template <class Acc>
struct RandomFactor {
    RandomFactor(DType dtype, std::int64_t outers_, std::int64_t depth, bool k_contiguous, std::int64_t gap,
                 bool gather_outer, bool gather_k, bool scale, std::mt19937_64& random)
        : outers(outers_),
          memory(engine_of(Backend::cpu), dtype,
                 {{k_contiguous ? outers : depth, (k_contiguous ? depth : outers) * gap}}) {
        memory.fill_normal(Random(random()));
        outer_index.resize(static_cast<std::size_t>(outers));
        std::iota(outer_index.begin(), outer_index.end(), 0);
        k_index.resize(static_cast<std::size_t>(depth));
        std::iota(k_index.begin(), k_index.end(), 0);
        if (gather_outer) std::shuffle(outer_index.begin(), outer_index.end(), random);
        if (gather_k) std::shuffle(k_index.begin(), k_index.end(), random);
        std::uniform_real_distribution<Acc> uniform(-1, 1);
        for (std::int64_t k = 0; k < depth; ++k) scales.push_back(scale ? uniform(random) : Acc{1});
        const std::int64_t line = memory.width();
        factor.data = memory.view().data;
        factor.dtype = dtype;
        factor.outer_stride = k_contiguous ? line : gap;
        factor.k_stride = k_contiguous ? gap : line;
        if (gather_outer) factor.outer_index = outer_index.data();
        if (gather_k) factor.k_index = k_index.data();
        if (scale) factor.k_scale = scales.data();
        along_k = k_contiguous;
        step = gap;
    }

    double at(std::int64_t outer, std::int64_t k) const {
        const std::int64_t o = outer_index[static_cast<std::size_t>(outer)];
        const std::int64_t i = k_index[static_cast<std::size_t>(k)];
        return memory.at(along_k ? o * memory.width() + i * step : i * memory.width() + o * step) *
               static_cast<double>(scales[static_cast<std::size_t>(k)]);
    }

    std::int64_t outers;
    Array memory;
    std::vector<std::int64_t> outer_index;
    std::vector<std::int64_t> k_index;
    std::vector<Acc> scales;
    cpu::Factor<Acc> factor;
    bool along_k = false;
    std::int64_t step = 1;
};

template <class Acc>
void check_product(const cpu::Kernels<Acc>& kernels, const RandomFactor<Acc>& left, const RandomFactor<Acc>& right,
                   std::int64_t depth, double limit) {
    // Not from the first row, column and k on: offsets must count.
    const std::int64_t row0 = left.outers > 1 ? 1 : 0;
    const std::int64_t column0 = right.outers > 2 ? 2 : 0;
    const std::int64_t k0 = depth > 3 ? 3 : 0;
    const std::int64_t rows = left.outers - row0;
    const std::int64_t columns = right.outers - column0;
    cpu::Tile<Acc> tile(kernels, rows, columns);
    tile.add(left.factor, {row0, k0}, right.factor, {column0, k0}, depth - k0);
    std::vector<double> got;
    std::vector<double> expected;
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
            double sum = 0;
            for (std::int64_t k = k0; k < depth; ++k) sum += left.at(row0 + i, k) * right.at(column0 + j, k);
            expected.push_back(sum);
            got.push_back(static_cast<double>(tile.row(i)[j]));
        }
    }
    EXPECT_LE(norm_error(got, expected), limit);
}

template <class Acc>
void check_all_factors(const cpu::Kernels<Acc>& kernels, std::initializer_list<DType> dtypes, double limit) {
    std::mt19937_64 random(11);
    for (DType dtype : dtypes) {
        for (int mask = 0; mask < 32; ++mask) {
            const bool k_contiguous = (mask & 1) != 0;
            const std::int64_t gap = (mask & 2) != 0 ? 3 : 1;
            const RandomFactor<Acc> left(dtype, 23, 37, k_contiguous, gap, (mask & 4) != 0, (mask & 8) != 0,
                                         (mask & 16) != 0, random);
            const RandomFactor<Acc> right(dtype, 71, 37, !k_contiguous, gap, (mask & 8) != 0, (mask & 4) != 0, false,
                                          random);
            SCOPED_TRACE(testing::Message() << "dtype " << name(dtype) << ", factors " << mask);
            check_product(kernels, left, right, 37, limit);
        }
    }
}

TEST(Kernels, MultiplyEveryKindOfFactorOnEveryInstructionSet) {
    for (const cpu::KernelSet& set : cpu::kernel_sets()) {
        SCOPED_TRACE(testing::Message() << "register block " << set.fp32.rows << " x " << set.fp32.columns);
        check_all_factors(set.fp32, {DType::bf16, DType::fp16, DType::fp32}, 1e-6);
        check_all_factors(set.fp64, {DType::fp32, DType::fp64}, 1e-14);
    }
}

TEST(Kernels, MultiplyEverySizeUpToTwoRegisterBlocks) {
    std::mt19937_64 random(12);
    for (const cpu::KernelSet& set : cpu::kernel_sets()) {
        for (std::int64_t size = 1; size <= 2 * set.fp32.columns; ++size) {
            const std::int64_t rows = 1 + size % (2 * set.fp32.rows);
            const RandomFactor<float> left(DType::fp32, rows, size, true, 1, false, false, false, random);
            const RandomFactor<float> right(DType::fp32, size, size, true, 1, false, false, false, random);
            SCOPED_TRACE(size);
            check_product(set.fp32, left, right, size, 1e-6);
        }
    }
}

TEST(Kernels, AddDepthInBlocks) {
    std::mt19937_64 random(13);
    for (const cpu::KernelSet& set : cpu::kernel_sets()) {
        for (std::int64_t depth : {191, 192, 193, 1000}) {
            const RandomFactor<double> left(DType::fp64, 9, depth, true, 1, true, false, false, random);
            const RandomFactor<double> right(DType::fp64, 19, depth, false, 1, false, true, false, random);
            SCOPED_TRACE(depth);
            check_product(set.fp64, left, right, depth, 1e-13);
        }
    }
}

TEST(Kernels, GiveAnElementTheSameBitsWhereverItLies) {
    std::mt19937_64 random(14);
    for (const cpu::KernelSet& set : cpu::kernel_sets()) {
        const RandomFactor<float> left(DType::bf16, 40, 300, true, 1, false, false, false, random);
        const RandomFactor<float> right(DType::bf16, 90, 300, false, 1, false, false, false, random);
        cpu::Tile<float> whole(set.fp32, 40, 90);
        whole.add(left.factor, {0, 0}, right.factor, {0, 0}, 300);
        for (std::int64_t row : {0, 5, 39}) {
            for (std::int64_t column : {0, 31, 89}) {
                cpu::Tile<float> one(set.fp32, 1, 1);
                one.add(left.factor, {row, 0}, right.factor, {column, 0}, 300);
                EXPECT_EQ(one.row(0)[0], whole.row(row)[column]);
            }
        }
    }
}

TEST(Kernels, SumOfNothingIsZero) {
    const cpu::Tile<double> tile(cpu::kernel_sets().front().fp64, 3, 5);
    for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t j = 0; j < 5; ++j) EXPECT_EQ(tile.row(i)[j], 0.0);
    }
}

}  // namespace
}  // namespace smlora::test
