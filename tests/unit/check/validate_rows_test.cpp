// Every check of the arguments of route, group, combine and combine_backward: a call that is sound but for one thing,
// and what is said of it.
#include "unit/check/validate_calls.hpp"

namespace smlora::check::test {
namespace {

TEST(ValidateRoute, TakesWhatIsSound) {
    expect_taken<Route>({{"int32", [](Route&) {}}, {"int64", [](Route& c) { c.args.top_idx.dtype = DType::int64; }}});
    expect_taken<Route>({{"no token",
                          [](Route& c) {
                              c.args.top_idx = {nullptr, DType::int32, {0, top_k}};
                              c.args.routing.sorted_expert_idxs = {nullptr, DType::int64, {0}};
                              c.args.routing.sorted_scattered_idxs = {nullptr, DType::int64, {0}};
                          }}},
                        0);
}

TEST(ValidateRoute, NamesWhatIsWrong) {
    expect_problem_checked<Route>();
    expect_routing_checked<Route>();
    expect_refused<Route>(
        {{"top_idx: expected int32 or int64, got fp32", [](Route& c) { c.args.top_idx.dtype = DType::fp32; }},
         {"top_idx: expected [T, top_k] = [3, 2], got [3, 4]",
          [](Route& c) {
              c.args.top_idx = tensor(DType::int32, {3, 4});
          }},
         {"top_idx: expected [T, top_k], got [6]", [](Route& c) { c.args.top_idx = tensor(DType::int32, {6}); }},
         {"top_idx: expected a contiguous tensor, got strides [1, 3] for shape [3, 2]",
          [](Route& c) {
              c.args.top_idx = strided(DType::int32, {3, 2}, {1, 3});
          }},
         {"top_idx: expected memory for shape [3, 2], got a null pointer",
          [](Route& c) { c.args.top_idx.data = nullptr; }},
         {"top_idx: expected [T, top_k] of int32 or int64, not given", [](Route& c) { c.args.top_idx = {}; }},
         {"top_idx: expected [T, top_k], got [-3, 2]",
          [](Route& c) {
              c.args.top_idx = tensor(DType::int32, {-3, 2});
          }},
         {"routing.sorted_expert_idxs: expected to be given to route, which writes it, not given",
          [](Route& c) { c.args.routing.sorted_expert_idxs = {}; }},
         {"T: expected 0 to 1073741823, so that M = T * top_k (top_k = 2) fits int32 (problem.index_dtype), got "
          "1073741824",
          [](Route& c) {
              c.problem.index_dtype = DType::int32;
              c.args.top_idx.shape[0] = std::int64_t{1} << 30;
          }},
         {"T: expected 0 to 1073741823, so that M = T * top_k (top_k = 2) fits int32 (CUDA backend), got 1073741824",
          [](Route& c) {
              c.backend = Backend::cuda;
              c.args.top_idx.shape[0] = std::int64_t{1} << 30;
          }},
         {"T: expected 0 to 4611686018427387903, so that M = T * top_k (top_k = 2) fits int64, got "
          "4611686018427387904",
          [](Route& c) { c.args.top_idx.shape[0] = std::int64_t{1} << 62; }}});
}

TEST(ValidateGroup, TakesWhatIsSound) {
    expect_taken<Group>({{"token rows", [](Group&) {}},
                         {"scattered rows",
                          [](Group& c) {
                              c.problem.x_rows = RowOrder::scattered;
                              c.args.x = tensor(DType::fp16, {M, 7});
                          }},
                         {"no gates", [](Group& c) { c.args.gates = {}; }},
                         {"gates that the problem does not have", [](Group& c) { c.problem.gates = false; }},
                         {"no expert of each row", [](Group& c) { c.args.routing.sorted_expert_idxs = {}; }}});
}

TEST(ValidateGroup, NamesWhatIsWrong) {
    expect_problem_checked<Group>();
    expect_routing_checked<Group>();
    expect_gates_checked<Group>();
    expect_first_rows_checked<Group>("x", [](Group& c) -> Tensor& { return c.args.x; });
    expect_rows_checked<Group>(
        "out", [](Group& c) -> Tensor& { return c.args.out; }, "[M, width of x] = [6, 7]");
    expect_refused<Group>({{"problem.x_rows: expected token or scattered to group, got grouped",
                            [](Group& c) { c.problem.x_rows = RowOrder::grouped; }},
                           {"x: expected [M, columns] with M = T * top_k, a multiple of 2, got [3, 7]",
                            [](Group& c) { c.problem.x_rows = RowOrder::scattered; }},
                           {"x: expected contiguous columns, got strides [1, 3] for shape [3, 7]", [](Group& c) {
                                c.args.x = strided(DType::fp16, {3, 7}, {1, 3});
                            }}});
}

TEST(ValidateCombine, TakesWhatIsSound) {
    expect_taken<Combine>({{"gates", [](Combine&) {}}, {"no gates", [](Combine& c) { c.args.gates = {}; }}});
}

TEST(ValidateCombine, NamesWhatIsWrong) {
    expect_problem_checked<Combine>();
    expect_gates_checked<Combine>();
    expect_rows_checked<Combine>(
        "out", [](Combine& c) -> Tensor& { return c.args.out; }, "[T, width of y] = [3, 7]");
    expect_refused<Combine>({{"y: expected [M, columns] of fp16, not given", [](Combine& c) { c.args.y = {}; }},
                             {"y: expected [M, columns] with M = T * top_k, a multiple of 2, got [5, 7]",
                              [](Combine& c) { c.args.y.shape[0] = 5; }},
                             {"y: expected fp16, got fp32", [](Combine& c) { c.args.y.dtype = DType::fp32; }},
                             {"y: expected a row stride no smaller than the row, got strides [6, 1] for shape [6, 7]",
                              [](Combine& c) { c.args.y.strides[0] = 6; }}});
}

TEST(ValidateCombineBackward, TakesWhatIsSound) {
    expect_taken<CombineBackward>({{"everything", [](CombineBackward&) {}},
                                   {"dy alone",
                                    [](CombineBackward& c) {
                                        c.args.dgates = {};
                                        c.args.y = {};
                                    }},
                                   {"dgates alone", [](CombineBackward& c) { c.args.dy = {}; }},
                                   {"no gates", [](CombineBackward& c) { c.args.gates = {}; }}});
}

TEST(ValidateCombineBackward, NamesWhatIsWrong) {
    using Call = CombineBackward;
    expect_problem_checked<Call>();
    expect_gates_checked<Call>();
    expect_first_rows_checked<Call>("dout", [](Call& c) -> Tensor& { return c.args.dout; });
    expect_tensor_checked<Call>(
        "y", [](Call& c) -> Tensor& { return c.args.y; }, "[M, width of dout] = [6, 7]", "fp16", false);
    expect_tensor_checked<Call>(
        "dy", [](Call& c) -> Tensor& { return c.args.dy; }, "[M, width of dout] = [6, 7]", "fp16", false);
    expect_tensor_checked<Call>(
        "dgates", [](Call& c) -> Tensor& { return c.args.dgates; }, "[T, top_k] = [3, 2]", "fp32", false);
    expect_refused<Call>({{"dy, dgates: expected at least one to be given, got neither",
                           [](Call& c) { c.args.dy = c.args.dgates = {}; }},
                          {"y: expected to be given to compute dgates, not given", [](Call& c) { c.args.y = {}; }}});
}

}  // namespace
}  // namespace smlora::check::test
