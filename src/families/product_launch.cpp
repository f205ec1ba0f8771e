#include "families/product_launch.hpp"

#include "families/tensor_layout.hpp"

namespace smlora::families {
namespace {

class PortableLaunch final : public ProductLaunch {
 public:
    explicit PortableLaunch(std::int64_t E) : E_(E) {}

    void launch(const Launcher& launcher, const Step& step, const GroupedProductArgs& args, const Adapter&,
                const PackedParts&, gpu::Begin) const override {
        launcher.launch(step, most_tiles(step, args.M, E_), args);
    }

 private:
    std::int64_t E_;
};

}  // namespace

std::int64_t most_tiles(const Step& step, std::int64_t M, std::int64_t E) {
    return (M / step.tile_rows + E + 1) * step.column_tiles;
}

std::shared_ptr<const ProductLaunch> portable_launch(std::int64_t E) { return std::make_shared<PortableLaunch>(E); }

GroupedProductArgs product_args(const Problem& problem, const Routing& routing, std::int64_t M) {
    GroupedProductArgs args{};
    args.weight_row_stride = problem.weight_layout == WeightLayout::ekn ? problem.N : problem.K;
    args.scattered_idxs = routing.sorted_scattered_idxs.data;
    args.expert_offsets = routing.expert_offsets.data;
    args.scale = 1.0F;
    args.M = static_cast<int>(M);
    return args;
}

std::int64_t rank_rows_bytes(const Problem& problem, std::int64_t M) {
    return M * padded_rank(problem) * static_cast<std::int64_t>(size_of(problem.dtype));
}

void launch_rank_product(const Launcher& launcher, const Step& step, const Problem& problem, GroupedProductArgs args,
                         const Tensor& rows, const AdapterMatrix& matrix, float scaling, void* out) {
    args.rows = rows.data;
    args.rows_stride = row_stride(rows);
    args.weight = matrix.data;
    args.weight_expert_stride = matrix.expert_stride;
    args.weight_row_stride = matrix.row_stride;
    args.out = out;
    args.out_stride = padded_rank(problem);
    args.scale = scaling;
    step.product_launch->launch(launcher, step, args, {}, {}, gpu::Begin::after_earlier_work);
}

void launch_rank_rows(const Launcher& launcher, const ProductSteps& steps, const Problem& problem, const Tensor& rows,
                      const Adapter& adapter, const GroupedProductArgs& args) {
    if (steps.rank_rows == nullptr) return;
    launch_rank_product(launcher, *steps.rank_rows, problem, args, rows, adapter.ranked, adapter.scaling,
                        adapter.rank_rows);
}

void set_operands(GroupedProductArgs& args, const Tensor& rows, const Adapter& adapter) {
    args.rows = rows.data;
    args.rows_stride = row_stride(rows);
    args.lora_rows = adapter.rank_rows;
    args.lora_weight = adapter.adapted.data;
    args.lora_expert_stride = adapter.adapted.expert_stride;
    args.lora_row_stride = adapter.adapted.row_stride;
}

void launch_product(const Launcher& launcher, const ProductSteps& steps, const Problem& problem,
                    const ProductRows& rows, const Adapter& adapter, GroupedProductArgs args,
                    const PackedParts& parts) {
    launch_rank_rows(launcher, steps, problem, rows.given, adapter, args);
    set_operands(args, rows.of_product, adapter);
    // A family whose kernel waits for the rank rows itself may begin before they are written.
    const gpu::Begin begin =
        steps.rank_rows != nullptr ? gpu::Begin::during_last_kernel : gpu::Begin::after_earlier_work;
    steps.product->product_launch->launch(launcher, *steps.product, args, adapter, parts, begin);
}

}  // namespace smlora::families
