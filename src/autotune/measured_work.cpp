#include "autotune/measured_work.hpp"

#include "families/family.hpp"
#include "families/gradient_simt.hpp"
#include "families/product_launch.hpp"
#include "families/product_reference.hpp"
#include "plan/work.hpp"

namespace smlora::autotune {
namespace {

// Makes the adapter's part about as large as the rest: operands are of size 1, and a sum over thousands of products
// would otherwise drown one over sixteen.
constexpr float scaling = 0.25F;

std::int64_t element(const Problem& problem) { return static_cast<std::int64_t>(size_of(problem.dtype)); }

std::int64_t rows_of(const Problem& problem, RowOrder order, std::int64_t T) {
    return order == RowOrder::token ? T : T * problem.top_k;
}

Tensor matrix(const Problem& problem, void* data, std::int64_t rows, std::int64_t columns) {
    return {data, problem.dtype, {rows, columns}};
}

ResultMatrix row_major(std::int64_t rows, std::int64_t columns) { return {rows, columns, columns}; }

// Adapters lie as axolotl's kernels keep them, A as [E R, K] and B as [N, E R]: which kernel is the fastest for dB
// depends on how far apart the parts of an expert's lie.

families::AdapterMatrix matrix_a(const Problem& problem, const void* data) {
    return {data, padded_rank(problem) * problem.K, problem.K};
}

families::AdapterMatrix matrix_b(const Problem& problem, const void* data) {
    return {data, padded_rank(problem), problem.E * padded_rank(problem)};
}

/// XA or YB.
class RankRowsWork final : public MeasuredWork {
 public:
    RankRowsWork(const Problem& problem, plan::Role role)
        : problem_(problem),
          role_(role),
          product_(role == plan::Role::xa ? families::xa_product(problem) : families::yb_product(problem)) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        const std::int64_t s = element(problem_);
        return {{rows_of(problem_, product_.rows, T) * product_.red * s, problem_.dtype, true},
                {problem_.E * product_.red * product_.out * s, problem_.dtype, true},
                {families::rank_rows_bytes(problem_, T * problem_.top_k), problem_.dtype, false}};
    }
    [[nodiscard]] std::vector<Output> outputs(std::int64_t T) const override {
        return {{2, row_major(T * problem_.top_k, product_.out), true}};
    }
    [[nodiscard]] double products_a_row() const override {
        return static_cast<double>(product_.red) * static_cast<double>(product_.out);
    }
    [[nodiscard]] std::vector<plan::Role> roles() const override { return {role_}; }
    [[nodiscard]] std::vector<plan::Role> own_roles() const override { return {role_}; }

    [[nodiscard]] plan::Plan reference_plan() const override {
        plan::Plan plan;
        plan.set(role_, families::product_reference_step({problem_, product_}));
        return plan;
    }

    void launch(const families::Launcher& launcher, const plan::Plan& plan, const std::vector<void*>& operands,
                const plan::CallRows& rows) const override {
        families::launch_rank_product(
            launcher, plan.at(role_), problem_, families::product_args(problem_, rows.routing, rows.T * problem_.top_k),
            matrix(problem_, operands[0], rows_of(problem_, product_.rows, rows.T), product_.red),
            role_ == plan::Role::xa ? matrix_a(problem_, operands[1]) : matrix_b(problem_, operands[1]), scaling,
            operands[2]);
    }

 private:
    Problem problem_;
    plan::Role role_;
    families::Product product_;
};

/// The product of forward or dX with its adapter.
class ProductWork final : public MeasuredWork {
 public:
    ProductWork(const Problem& problem, const plan::Request& request)
        : problem_(problem),
          rank_role_(*plan::rank_role(request)),
          product_(plan::product_work(problem, request, plan::Role::product).product) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        const std::int64_t s = element(problem_);
        const std::int64_t M = T * problem_.top_k;
        const std::int64_t adapter = problem_.R > 0 ? problem_.E * padded_rank(problem_) * s : 0;
        return {{rows_of(problem_, product_.rows, T) * product_.red * s, problem_.dtype, true},
                {problem_.E * product_.red * product_.out * s, problem_.dtype, true},
                {adapter * product_.red, problem_.dtype, true},
                {adapter * product_.out, problem_.dtype, true},
                {product_.bias ? problem_.E * product_.out * s : 0, problem_.dtype, true},
                {product_.gates ? M * static_cast<std::int64_t>(size_of(problem_.gate_dtype)) : 0, problem_.gate_dtype,
                 true, true},
                {problem_.R > 0 ? families::rank_rows_bytes(problem_, M) : 0, problem_.dtype, false},
                {rows_of(problem_, product_.out_rows, T) * product_.out * s, problem_.dtype, false},
                {problem_.R > 0 ? families::product_scratch_bytes(problem_, M) : 0, DType::int32, false}};
    }
    [[nodiscard]] std::vector<Output> outputs(std::int64_t T) const override {
        std::vector<Output> outputs{{7, row_major(rows_of(problem_, product_.out_rows, T), product_.out), false}};
        if (problem_.R > 0) outputs.push_back({6, row_major(T * problem_.top_k, padded_rank(problem_)), true});
        return outputs;
    }
    [[nodiscard]] double products_a_row() const override {
        return static_cast<double>(product_.red + padded_rank(problem_)) * static_cast<double>(product_.out) +
               static_cast<double>(product_.red) * static_cast<double>(padded_rank(problem_));
    }
    [[nodiscard]] std::vector<plan::Role> roles() const override { return {rank_role_, plan::Role::product}; }
    [[nodiscard]] std::vector<plan::Role> own_roles() const override { return {plan::Role::product}; }

    [[nodiscard]] plan::Plan reference_plan() const override {
        plan::Plan plan;
        if (problem_.R > 0) {
            const families::Product ranks =
                rank_role_ == plan::Role::xa ? families::xa_product(problem_) : families::yb_product(problem_);
            plan.set(rank_role_, families::product_reference_step({problem_, ranks}));
        }
        plan.set(plan::Role::product, families::product_reference_step({problem_, product_}));
        return plan;
    }

    void launch(const families::Launcher& launcher, const plan::Plan& plan, const std::vector<void*>& operands,
                const plan::CallRows& rows) const override {
        families::Adapter adapter;
        if (problem_.R > 0) {
            const bool forward = rank_role_ == plan::Role::xa;
            adapter.ranked = forward ? matrix_a(problem_, operands[2]) : matrix_b(problem_, operands[2]);
            adapter.adapted = forward ? matrix_b(problem_, operands[3]) : matrix_a(problem_, operands[3]);
            adapter.scaling = scaling;
            adapter.rank_rows = operands[6];
            adapter.scratch = operands[8];
        }
        GroupedProductArgs args = families::product_args(problem_, rows.routing, rows.T * problem_.top_k);
        args.weight = operands[1];
        args.weight_expert_stride = product_.red * product_.out;
        args.bias = operands[4];
        args.gates = operands[5];
        args.out = operands[7];
        args.out_stride = product_.out;
        families::launch_product(
            launcher, {.rank_rows = plan.find(rank_role_), .product = plan.find(plan::Role::product)}, problem_,
            matrix(problem_, operands[0], rows_of(problem_, product_.rows, rows.T), product_.red), adapter, args);
    }

 private:
    Problem problem_;
    plan::Role rank_role_;
    families::Product product_;
};

/// dA and dB.
class GradientsWork final : public MeasuredWork {
 public:
    GradientsWork(const Problem& problem, const plan::BackwardLora& request)
        : problem_(problem), wants_a_(request.wants_da), wants_b_(request.wants_db) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        const std::int64_t M = T * problem_.top_k;
        const std::int64_t gates = problem_.gates ? M * static_cast<std::int64_t>(size_of(problem_.gate_dtype)) : 0;
        std::vector<Operand> operands{{gates, problem_.gate_dtype, true, true}};
        for (const bool a : {true, false}) {
            const std::int64_t width = wanted_width(a);
            const RowOrder order = a ? problem_.x_rows : problem_.y_rows;
            operands.push_back({rows_of(problem_, order, T) * width * element(problem_), problem_.dtype, true});
            operands.push_back({width > 0 ? families::rank_rows_bytes(problem_, M) : 0, problem_.dtype, true});
            operands.push_back(
                {problem_.E * problem_.R * width * static_cast<std::int64_t>(size_of(problem_.adapter_dtype)),
                 problem_.adapter_dtype, false});
            operands.push_back({families::partials_bytes(problem_, width, M), DType::fp32, false});
        }
        return operands;
    }
    [[nodiscard]] std::vector<Output> outputs(std::int64_t) const override {
        std::vector<Output> outputs;
        if (wants_a_) outputs.push_back({3, row_major(problem_.E, problem_.R * problem_.K), false});
        if (wants_b_) outputs.push_back({7, {problem_.E, problem_.N * problem_.R, problem_.R}, false});
        return outputs;
    }
    [[nodiscard]] double products_a_row() const override {
        return static_cast<double>(problem_.R) * static_cast<double>(wanted_width(true) + wanted_width(false));
    }
    [[nodiscard]] std::vector<plan::Role> roles() const override { return {plan::Role::gradients, plan::Role::reduce}; }
    [[nodiscard]] std::vector<plan::Role> own_roles() const override { return {plan::Role::gradients}; }

    [[nodiscard]] plan::Plan reference_plan() const override {
        plan::Plan plan;
        if (wants_a_) {
            plan.set(plan::Role::gradient_a,
                     families::gradient_reference_step(problem_, {problem_.K, problem_.x_rows}));
        }
        if (wants_b_) {
            plan.set(plan::Role::gradient_b,
                     families::gradient_reference_step(problem_, {problem_.N, problem_.y_rows}));
        }
        return plan;
    }

    void launch(const families::Launcher& launcher, const plan::Plan& plan, const std::vector<void*>& operands,
                const plan::CallRows& rows) const override {
        LoraGradientPair pair{};
        for (const bool a : {true, false}) {
            LoraGradientArgs& side = a ? pair.a : pair.b;
            side.gates = operands[0];
            side.scattered_idxs = rows.routing.sorted_scattered_idxs.data;
            side.expert_offsets = rows.routing.expert_offsets.data;
            side.M = static_cast<int>(rows.T * problem_.top_k);
            const std::int64_t width = wanted_width(a);
            if (width == 0) continue;
            const std::size_t first = a ? 1 : 5;
            side.wide = operands[first];
            side.wide_stride = width;
            side.rank_rows = operands[first + 1];
            side.out = operands[first + 2];
            side.partials = operands[first + 3];
            side.out_expert_stride = a ? problem_.R * problem_.K : problem_.R;
            side.out_rank_stride = a ? problem_.K : 1;
            side.out_wide_stride = a ? 1 : problem_.E * problem_.R;
        }
        families::launch_gradients(launcher,
                                   {.both = plan.find(plan::Role::gradients),
                                    .reduce = plan.find(plan::Role::reduce),
                                    .a = plan.find(plan::Role::gradient_a),
                                    .b = plan.find(plan::Role::gradient_b)},
                                   problem_, pair);
    }

 private:
    [[nodiscard]] std::int64_t wanted_width(bool a) const {
        if (a) return wants_a_ ? problem_.K : 0;
        return wants_b_ ? problem_.N : 0;
    }

    Problem problem_;
    bool wants_a_, wants_b_;
};

}  // namespace

std::unique_ptr<MeasuredWork> measured_work(const Problem& problem, const plan::Request& request, plan::Role role) {
    switch (role) {
        case plan::Role::xa:
        case plan::Role::yb:
            return std::make_unique<RankRowsWork>(problem, role);
        case plan::Role::gradients:
            return std::make_unique<GradientsWork>(problem, std::get<plan::BackwardLora>(request));
        default:
            return std::make_unique<ProductWork>(problem, request);
    }
}

}  // namespace smlora::autotune
