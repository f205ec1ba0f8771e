// route against the host model: exact, for every position.
#include "support/case.hpp"
#include "support/projection.hpp"

#include <smlora/memory.hpp>
#include <smlora/operations.hpp>

#include <fmt/format.h>

#include <cstdint>
#include <limits>

namespace smlora::test {
namespace {

struct RouteCase {
    std::string name;
    std::int64_t E = 8, T = 100, top_k = 2;
    DType top_idx = DType::int64, index = DType::int32;
    Choice choice = Choice::distinct;
    double left_out = 0;

    friend std::ostream& operator<<(std::ostream& out, const RouteCase& c) { return out << c.name; }
};

class Route : public BackendFixture, public testing::WithParamInterface<std::tuple<Backend, RouteCase>> {
 protected:
    void SetUp() override { use(std::get<0>(GetParam())); }

    /// Runs route, with scratch memory of exactly the queried size or from the pool, and compares all three arrays.
    void expect_routed(const std::vector<std::int64_t>& chosen, const RouteCase& c, bool own_workspace) {
        const HostRouting expected(chosen, c.E);
        Problem problem = shape(c.E, 16, 16, 4, c.top_k);
        problem.index_dtype = c.index;
        const std::int64_t M = c.T * c.top_k;
        Array top_idx(engine(), c.top_idx, {{c.T, c.top_k}});
        top_idx.fill([&](std::int64_t i) { return static_cast<double>(chosen[index(i)]); });
        Array experts(engine(), c.index, {{M}}), scattered(engine(), c.index, {{M}}),
            offsets(engine(), c.index, {{c.E}});
        RouteArgs args;
        args.top_idx = top_idx.view();
        args.routing = {experts.view(), scattered.view(), offsets.view()};
        Array workspace;
        if (own_workspace) {
            workspace = Array(engine(), DType::int32,
                              {{static_cast<std::int64_t>((route_workspace(engine(), problem, c.T) + 3) / 4)}});
            args.workspace = {workspace.view().data, route_workspace(engine(), problem, c.T)};
        }
        route(engine(), {}, problem, args);
        synchronize(engine(), {});
        expect_equal(experts, expected.sorted_expert_idxs, "sorted_expert_idxs");
        expect_equal(scattered, expected.sorted_scattered_idxs, "sorted_scattered_idxs");
        expect_equal(offsets, expected.expert_offsets, "expert_offsets");
        if (own_workspace) {
            workspace.download();
            EXPECT_TRUE(workspace.untouched_outside()) << "bytes beyond the workspace were overwritten";
        }
    }

 private:
    static void expect_equal(Array& actual, const std::vector<std::int64_t>& expected, const char* name) {
        actual.download();
        EXPECT_TRUE(actual.untouched_outside()) << name;
        std::int64_t differing = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            if (actual.at(static_cast<std::int64_t>(i)) == static_cast<double>(expected[i])) continue;
            if (++differing == 1) {
                ADD_FAILURE() << name << "[" << i << "] is " << actual.at(static_cast<std::int64_t>(i)) << ", not "
                              << expected[i];
            }
        }
        EXPECT_EQ(differing, 0) << name;
    }
};

TEST_P(Route, IsAStableSortByExpert) {
    const RouteCase& c = std::get<1>(GetParam());
    const std::vector<std::int64_t> chosen = choose_experts(fresh("routing"), c.T, c.top_k, c.E, c.choice, c.left_out);
    expect_routed(chosen, c, true);
    expect_routed(chosen, c, false);
}

TEST_P(Route, LeavesOutWhatIsNoExpert) {
    const RouteCase& c = std::get<1>(GetParam());
    std::vector<std::int64_t> chosen = choose_experts(fresh("routing"), c.T, c.top_k, c.E, c.choice, c.left_out);
    std::vector<std::int64_t> strangers{
        -1, -2, c.E, c.E + 1, std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
    // Valid once cut to 32 bits.
    if (c.top_idx == DType::int64) strangers.insert(strangers.end(), {std::int64_t{1} << 32, -(std::int64_t{1} << 40)});
    const Random random = fresh("strangers");
    for (std::size_t f = 0; f < chosen.size(); ++f) {
        const auto i = static_cast<std::uint64_t>(f);
        if (random.uniform(i) < 0.2) {
            chosen[f] = strangers[index(random.below(i + chosen.size(), static_cast<std::int64_t>(strangers.size())))];
        }
    }
    expect_routed(chosen, c, false);
}

std::vector<RouteCase> small_route_cases() {
    std::vector<RouteCase> cases;
    for (const DType in : {DType::int32, DType::int64}) {
        for (const DType out : {DType::int32, DType::int64}) {
            cases.push_back({.name = fmt::format("{}_to_{}", name(in), name(out)), .top_idx = in, .index = out});
        }
    }
    cases.push_back({.name = "no_token", .T = 0});
    cases.push_back({.name = "one_token", .T = 1});
    cases.push_back({.name = "one_expert", .E = 1, .top_k = 1});
    cases.push_back({.name = "all_left_out", .left_out = 2});
    cases.push_back({.name = "everything_to_one_expert", .T = 700, .choice = Choice::one_expert});
    return cases;
}

std::vector<RouteCase> expert_cases() {
    std::vector<RouteCase> cases;
    for (const std::int64_t E : {2, 3, 31, 32, 33, 64, 100, 128, 255, 256, 257, 512, 1000, 1024}) {
        cases.push_back({.name = fmt::format("E{}", E), .E = E, .T = 517, .top_k = std::min<std::int64_t>(E, 8)});
    }
    cases.push_back({.name = "top_64", .E = 128, .T = 99, .top_k = 64});
    cases.push_back({.name = "top_k_beyond_E", .E = 5, .T = 99, .top_k = 64});
    return cases;
}

std::vector<RouteCase> length_cases() {
    std::vector<RouteCase> cases;
    for (const std::int64_t T : {2, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 4097, 65537}) {
        cases.push_back({.name = fmt::format("T{}", T), .E = 60, .T = T, .top_k = 1});
    }
    cases.push_back({.name = "a_million_rows", .E = 256, .T = 131'077, .top_k = 8, .left_out = 0.1});
    cases.push_back({.name = "a_million_rows_skewed", .E = 1024, .T = 131'077, .top_k = 8, .choice = Choice::skewed});
    cases.push_back(
        {.name = "a_million_rows_to_one_expert", .E = 7, .T = 1'000'003, .top_k = 1, .choice = Choice::one_expert});
    cases.push_back({.name = "two_million_rows_int64", .E = 128, .T = 262'144, .top_k = 8, .index = DType::int64});
    return cases;
}

std::string name_of_route_case(const testing::TestParamInfo<std::tuple<Backend, RouteCase>>& case_info) {
    return name_of(std::get<0>(case_info.param)) + "_" + std::get<1>(case_info.param).name;
}
#define SMLORA_ROUTE_CASES(Prefix, cases)                                                                              \
    INSTANTIATE_TEST_SUITE_P(Prefix, Route,                                                                            \
                             testing::Combine(testing::Values(Backend::cpu, Backend::cuda), testing::ValuesIn(cases)), \
                             name_of_route_case)

SMLORA_ROUTE_CASES(Small, small_route_cases());
SMLORA_ROUTE_CASES(Experts, expert_cases());
SMLORA_ROUTE_CASES(Length, length_cases());

}  // namespace
}  // namespace smlora::test
