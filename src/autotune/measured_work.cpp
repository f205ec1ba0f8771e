#include "autotune/measured_work.hpp"

#include "families/family.hpp"
#include "families/gradient_simt.hpp"
#include "families/packed.hpp"
#include "families/product_launch.hpp"
#include "families/product_reference.hpp"
#include "families/unpacked_product.hpp"
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

/// The place of an operand in a set. Each kind of work has an enumeration of its operands' names, which ends with
/// `count`.
template <class Name>
constexpr std::size_t place(Name name) {
    return static_cast<std::size_t>(name);
}

/// What operands() gives, by name.
template <class Name>
struct OperandList {
    std::vector<Operand> list = std::vector<Operand>(place(Name::count));

    Operand& operator[](Name name) { return list[place(name)]; }
};

/// The addresses of a set, by name.
template <class Name>
struct OperandSet {
    const std::vector<void*>& addresses;

    void* operator[](Name name) const { return addresses[place(name)]; }
};

/// XA or YB.
class RankRowsWork final : public MeasuredWork {
 public:
    RankRowsWork(const Problem& problem, plan::Role role)
        : problem_(problem),
          role_(role),
          product_(role == plan::Role::xa ? families::xa_product(problem) : families::yb_product(problem)) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        const std::int64_t s = element(problem_);
        OperandList<Name> of;
        of[Name::rows] = {rows_of(problem_, product_.rows, T) * product_.red * s, problem_.dtype, true};
        of[Name::adapter] = {problem_.E * product_.red * product_.out * s, problem_.dtype, true};
        of[Name::rank_rows] = {families::rank_rows_bytes(problem_, T * problem_.top_k), problem_.dtype, false};
        return of.list;
    }
    [[nodiscard]] std::vector<Output> outputs(std::int64_t T) const override {
        return {{place(Name::rank_rows), row_major(T * problem_.top_k, product_.out), true}};
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
        const OperandSet<Name> set{operands};
        void* const adapter = set[Name::adapter];
        families::launch_rank_product(
            launcher, plan.at(role_), problem_, families::product_args(problem_, rows.routing, rows.T * problem_.top_k),
            matrix(problem_, set[Name::rows], rows_of(problem_, product_.rows, rows.T), product_.red),
            role_ == plan::Role::xa ? matrix_a(problem_, adapter) : matrix_b(problem_, adapter), scaling,
            set[Name::rank_rows]);
    }

 private:
    enum class Name { rows, adapter, rank_rows, count };

    Problem problem_;
    plan::Role role_;
    families::Product product_;
};

/// The product of forward or dX with its adapter, of plain weights.
class ProductWork : public MeasuredWork {
 public:
    ProductWork(const Problem& problem, const plan::Request& request)
        : problem_(problem),
          rank_role_(*plan::rank_role(request)),
          product_(plan::product_work(problem, request, plan::Role::product).product) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        const std::int64_t s = element(problem_);
        const std::int64_t M = T * problem_.top_k;
        const std::int64_t adapter = problem_.R > 0 ? problem_.E * padded_rank(problem_) * s : 0;
        OperandList<Name> of;
        of[Name::rows] = {rows_of(problem_, product_.rows, T) * product_.red * s, problem_.dtype, true};
        of[Name::weight] = weight();
        of[Name::ranked] = {adapter * product_.red, problem_.dtype, true};
        of[Name::adapted] = {adapter * product_.out, problem_.dtype, true};
        of[Name::bias] = {product_.bias ? problem_.E * product_.out * s : 0, problem_.dtype, true};
        of[Name::gates] = {product_.gates ? M * static_cast<std::int64_t>(size_of(problem_.gate_dtype)) : 0,
                           problem_.gate_dtype, true, true};
        of[Name::rank_rows] = {problem_.R > 0 ? families::rank_rows_bytes(problem_, M) : 0, problem_.dtype, false};
        of[Name::out] = {rows_of(problem_, product_.out_rows, T) * product_.out * s, problem_.dtype, false};
        of[Name::scratch] = {problem_.R > 0 ? families::product_scratch_bytes(problem_, M) : 0, DType::int32, false};
        return of.list;
    }
    [[nodiscard]] std::vector<Output> outputs(std::int64_t T) const override {
        const std::int64_t rows = rows_of(problem_, product_.out_rows, T);
        std::vector<Output> outputs{{place(Name::out), row_major(rows, product_.out), false}};
        if (problem_.R > 0) {
            outputs.push_back({place(Name::rank_rows), row_major(T * problem_.top_k, padded_rank(problem_)), true});
        }
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
        const OperandSet<Name> set{operands};
        families::Adapter adapter;
        if (problem_.R > 0) {
            const bool forward = rank_role_ == plan::Role::xa;
            void* const ranked = set[Name::ranked];
            void* const adapted = set[Name::adapted];
            adapter.ranked = forward ? matrix_a(problem_, ranked) : matrix_b(problem_, ranked);
            adapter.adapted = forward ? matrix_b(problem_, adapted) : matrix_a(problem_, adapted);
            adapter.scaling = scaling;
            adapter.rank_rows = set[Name::rank_rows];
            adapter.scratch = set[Name::scratch];
        }
        GroupedProductArgs args = families::product_args(problem_, rows.routing, rows.T * problem_.top_k);
        args.bias = set[Name::bias];
        args.gates = set[Name::gates];
        args.out = set[Name::out];
        args.out_stride = product_.out;
        const Tensor factors =
            matrix(problem_, set[Name::rows], rows_of(problem_, product_.rows, rows.T), product_.red);
        launch_product(launcher, plan, operands, factors, adapter, args);
    }

 protected:
    /// `ranked` makes the rank rows, `adapted` multiplies them. What derives from this may have more.
    enum class Name { rows, weight, ranked, adapted, bias, gates, rank_rows, out, scratch, count };

    [[nodiscard]] virtual Operand weight() const {
        return {problem_.E * product_.red * product_.out * element(problem_), problem_.dtype, true};
    }
    [[nodiscard]] families::ProductSteps steps_of(const plan::Plan& plan) const {
        return {.rank_rows = plan.find(rank_role_), .product = plan.find(plan::Role::product)};
    }
    /// `args` but for the weight.
    virtual void launch_product(const families::Launcher& launcher, const plan::Plan& plan,
                                const std::vector<void*>& operands, const Tensor& rows,
                                const families::Adapter& adapter, GroupedProductArgs args) const {
        args.weight = operands[place(Name::weight)];
        args.weight_expert_stride = product_.red * product_.out;
        families::launch_product(launcher, steps_of(plan), problem_, {rows, rows}, adapter, args);
    }

    Problem problem_;
    plan::Role rank_role_;
    families::Product product_;
};

/// The same of arranged weights: by a product that decodes them, or one of what they are unpacked to.
class DecodingWork final : public ProductWork {
 public:
    DecodingWork(const Problem& problem, const plan::Request& request, const gpu::DeviceFacts& facts)
        : ProductWork(problem, request),
          weight_(problem),
          unpack_(*plan::unpack_of(request)),
          unpack_step_(families::unpack_step(problem, unpack_.work, facts)) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        std::vector<Operand> all = ProductWork::operands(T);
        const std::int64_t experts = plan::experts_at_once(problem_, unpack_);
        OperandList<Part> of;
        of[Part::scales] = operand_of(weight_.scales());
        of[Part::values] = operand_of(weight_.values());
        of[Part::permuted] = {all[place(Name::rows)].bytes, problem_.dtype, false};
        of[Part::unpacked] = {families::unpacked_bytes(problem_, experts), problem_.dtype, false};
        of[Part::slice_rows] = {families::slice_rows_bytes(problem_, experts), problem_.index_dtype, false};
        all.insert(all.end(), of.list.begin(), of.list.end());
        return all;
    }
    [[nodiscard]] std::vector<plan::Role> roles() const override {
        return {rank_role_, plan::Role::permute_rows, plan::Role::unpack, plan::Role::product};
    }

    [[nodiscard]] plan::Plan reference_plan() const override {
        plan::Plan plan = ProductWork::reference_plan();
        plan.set(plan::Role::unpack, unpack_step_);
        // That of plain kernels which takes slices.
        families::Product product = product_;
        product.packed = false;
        product.slice = unpack_.slice;
        plan.set(plan::Role::product, families::product_step({problem_, product}, std::nullopt));
        return plan;
    }

 private:
    enum class Part { scales, values, permuted, unpacked, slice_rows, count };

    [[nodiscard]] static Operand operand_of(const WeightPart& part) {
        return {.bytes = part.bytes, .dtype = DType::uint8, .input = true, .pattern = part.pattern};
    }
    [[nodiscard]] Operand weight() const override { return operand_of(weight_.codes()); }

    void launch_product(const families::Launcher& launcher, const plan::Plan& plan, const std::vector<void*>& operands,
                        const Tensor& rows, const families::Adapter& adapter, GroupedProductArgs args) const override {
        const auto at = [&](Part part) { return operands[place(Name::count) + place(part)]; };
        const Weight weight = weight_.at(operands[place(Name::weight)], at(Part::scales), at(Part::values));
        if (const families::Step* const unpack = plan.find(plan::Role::unpack)) {
            families::launch_unpacked_product(launcher, problem_,
                                              {.unpack = *unpack,
                                               .steps = steps_of(plan),
                                               .slice = unpack_.slice,
                                               .weights = at(Part::unpacked),
                                               .slice_rows = at(Part::slice_rows)},
                                              weight, rows, adapter, args);
            return;
        }
        args.weight = weight.codes.data;
        args.weight_expert_stride = weight.codes.strides[0];
        const Tensor permuted =
            families::permuted_rows(launcher, plan.find(plan::Role::permute_rows), rows, at(Part::permuted));
        families::launch_product(launcher, steps_of(plan), problem_, {rows, permuted}, adapter, args,
                                 {weight.scales.data, static_cast<const float*>(weight.table.data)});
    }

    MeasuredWeight weight_;
    plan::Unpack unpack_;
    families::Step unpack_step_;
};

/// dA and dB.
class GradientsWork final : public MeasuredWork {
 public:
    GradientsWork(const Problem& problem, const plan::BackwardLora& request)
        : problem_(problem), wants_a_(request.wants_da), wants_b_(request.wants_db) {}

    [[nodiscard]] std::vector<Operand> operands(std::int64_t T) const override {
        const std::int64_t M = T * problem_.top_k;
        const std::int64_t gates = problem_.gates ? M * static_cast<std::int64_t>(size_of(problem_.gate_dtype)) : 0;
        OperandList<Name> of;
        of[Name::gates] = {gates, problem_.gate_dtype, true, true};
        for (const Side& side : sides) {
            const std::int64_t width = wanted_width(side.a);
            const RowOrder order = side.a ? problem_.x_rows : problem_.y_rows;
            of[side.wide] = {rows_of(problem_, order, T) * width * element(problem_), problem_.dtype, true};
            of[side.rank_rows] = {width > 0 ? families::rank_rows_bytes(problem_, M) : 0, problem_.dtype, true};
            of[side.out] = {
                problem_.E * problem_.R * width * static_cast<std::int64_t>(size_of(problem_.adapter_dtype)),
                problem_.adapter_dtype, false};
            of[side.partials] = {families::partials_bytes(problem_, width, M), DType::fp32, false};
        }
        return of.list;
    }
    [[nodiscard]] std::vector<Output> outputs(std::int64_t) const override {
        std::vector<Output> outputs;
        if (wants_a_) outputs.push_back({place(Name::dA), row_major(problem_.E, problem_.R * problem_.K), false});
        if (wants_b_) outputs.push_back({place(Name::dB), {problem_.E, problem_.N * problem_.R, problem_.R}, false});
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
        const OperandSet<Name> set{operands};
        LoraGradientPair pair{};
        for (const Side& side : sides) {
            LoraGradientArgs& args = side.a ? pair.a : pair.b;
            args.gates = set[Name::gates];
            args.scattered_idxs = rows.routing.sorted_scattered_idxs.data;
            args.expert_offsets = rows.routing.expert_offsets.data;
            args.M = static_cast<int>(rows.T * problem_.top_k);
            const std::int64_t width = wanted_width(side.a);
            if (width == 0) continue;
            args.wide = set[side.wide];
            args.wide_stride = width;
            args.rank_rows = set[side.rank_rows];
            args.out = set[side.out];
            args.partials = set[side.partials];
            args.out_expert_stride = side.a ? problem_.R * problem_.K : problem_.R;
            args.out_rank_stride = side.a ? problem_.K : 1;
            args.out_wide_stride = side.a ? 1 : problem_.E * problem_.R;
        }
        families::launch_gradients(launcher,
                                   {.both = plan.find(plan::Role::gradients),
                                    .reduce = plan.find(plan::Role::reduce),
                                    .a = plan.find(plan::Role::gradient_a),
                                    .b = plan.find(plan::Role::gradient_b)},
                                   problem_, pair);
    }

 private:
    enum class Name { gates, x, yb, dA, a_partials, dy, xa, dB, b_partials, count };

    /// The operands of one gradient.
    struct Side {
        bool a;
        Name wide, rank_rows, out, partials;
    };
    static constexpr Side sides[] = {{true, Name::x, Name::yb, Name::dA, Name::a_partials},
                                     {false, Name::dy, Name::xa, Name::dB, Name::b_partials}};

    [[nodiscard]] std::int64_t wanted_width(bool a) const {
        if (a) return wants_a_ ? problem_.K : 0;
        return wants_b_ ? problem_.N : 0;
    }

    Problem problem_;
    bool wants_a_, wants_b_;
};

}  // namespace

std::unique_ptr<MeasuredWork> measured_work(const Problem& problem, const plan::Request& request, plan::Role role,
                                            const gpu::DeviceFacts& facts) {
    switch (role) {
        case plan::Role::xa:
        case plan::Role::yb:
            return std::make_unique<RankRowsWork>(problem, role);
        case plan::Role::gradients:
            return std::make_unique<GradientsWork>(problem, std::get<plan::BackwardLora>(request));
        case plan::Role::decoding:
            return std::make_unique<DecodingWork>(problem, request, facts);
        default:
            return std::make_unique<ProductWork>(problem, request);
    }
}

}  // namespace smlora::autotune
