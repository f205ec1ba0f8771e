// Every member of every C struct arrives in the member of the same name, by the lists of capi/members.hpp.
#include "unit/capi/c_structs.hpp"

#include <deque>
#include <optional>
#include <string>
#include <type_traits>

namespace smlora::capi::test {
namespace {

Problem convert(const smlora_problem& c) { return to_problem(&c); }
EngineOptions convert(const smlora_engine_options& c) { return to_options(&c); }
PrewarmOptions convert(const smlora_prewarm_options& c) { return to_options(c); }
TuneOptions convert(const smlora_tune_options& c) { return to_options(&c); }
template <class C>
auto convert(const C& c) {
    return to_args(&c);
}

/// How messages call the members of a struct.
template <class C>
std::string object_of() {
    if constexpr (std::is_same_v<C, smlora_problem>) return "problem.";
    if constexpr (std::is_same_v<C, smlora_engine_options> || std::is_same_v<C, smlora_tune_options> ||
                  std::is_same_v<C, smlora_prewarm_options>) {
        return "options.";
    }
    return "";
}

/// `CppType` tells an enumerator or a flag from a number.
template <class CppType, class C>
void fill(C& c) {
    if constexpr (std::is_same_v<C, smlora_tensor>) {
        c = distinct_tensor();
    } else if constexpr (requires { typename Members<C>::Cpp; }) {
        for_each_member<C>([&]<class M>(const M& member) {
            if constexpr (requires { member.cpp; }) {
                fill<std::remove_cvref_t<decltype(typename Members<C>::Cpp{}.*member.cpp)>>(c.*member.c);
            }
        });
    } else if constexpr (std::is_same_v<C, const char*>) {
        static std::deque<std::string> paths;
        c = paths.emplace_back("/folder/" + std::to_string(next())).c_str();
    } else if constexpr (std::is_pointer_v<C>) {
        c = reinterpret_cast<C>(static_cast<std::intptr_t>(next()));
    } else if constexpr (std::is_enum_v<CppType> || std::is_same_v<CppType, bool> ||
                         std::is_same_v<CppType, std::optional<TuningPolicy>> ||
                         std::is_same_v<CppType, std::optional<Determinism>>) {
        c = 1;
    } else {
        c = static_cast<C>(next());
    }
}

using capi::test::expect_same;  // of tensors

void expect_same(const Weight& plain, const smlora_tensor& c) { expect_same(plain.codes, c); }

void expect_same(const std::optional<TuningPolicy>& cpp, smlora_tuning c) {
    EXPECT_EQ(c, SMLORA_TUNING_FIRST_USE);
    EXPECT_EQ(cpp, TuningPolicy::first_use);
}

void expect_same(const std::optional<Determinism>& cpp, smlora_determinism c) {
    EXPECT_EQ(c, SMLORA_DETERMINISM_RUN);
    EXPECT_EQ(cpp, Determinism::run);
}

template <class Cpp, class C>
void expect_same(const Cpp& cpp, const C& c) {
    if constexpr (requires { typename Members<C>::Cpp; }) {
        for_each_member<C>([&](const auto& member) {
            if constexpr (requires { member.cpp; }) {
                SCOPED_TRACE(member.name);
                expect_same(cpp.*member.cpp, c.*member.c);
            }
        });
    } else if constexpr (std::is_enum_v<Cpp> || std::is_same_v<Cpp, bool>) {
        EXPECT_EQ(static_cast<std::int32_t>(cpp), c);
    } else {
        EXPECT_EQ(cpp, c);
    }
}

/// What a member is initialised from when members are counted; never called.
struct Anything {
    template <class T>
    operator T() const;
};

/// The members of an aggregate.
template <class T, class... Given>
consteval std::size_t member_count() {
    if constexpr (requires { T{Given{}..., Anything{}}; }) {
        return member_count<T, Given..., Anything>();
    } else {
        return sizeof...(Given);
    }
}

template <class C>
consteval std::size_t listed() {
    std::size_t count = Members<C>::by_hand;
    for_each_member<C>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) ++count;
    });
    return count;
}

template <class C>
class Convert : public ::testing::Test {};

template <class, class... C>
using WithoutFirst = ::testing::Types<C...>;
#define SMLORA_NEXT(name) , smlora_##name
using Structs = WithoutFirst<void SMLORA_FOR_EACH_INPUT(SMLORA_NEXT)>;
#undef SMLORA_NEXT
TYPED_TEST_SUITE(Convert, Structs);

TYPED_TEST(Convert, EveryMemberIsListedAndArrives) {
    using Cpp = typename Members<TypeParam>::Cpp;
    static_assert(listed<TypeParam>() == member_count<Cpp>(), "a member of the C++ struct is missing from the list");
    auto c = initialised<TypeParam>();
    fill<Cpp>(c);
    expect_same(convert(c), c);
}

static_assert(listed<smlora_routing>() == member_count<Routing>());
static_assert(listed<smlora_double_quantization>() == member_count<DoubleQuantization>());
static_assert(listed<smlora_workspace>() == member_count<Workspace>());
static_assert(listed<smlora_prewarm_activation>() == member_count<PrewarmActivation>());

TYPED_TEST(Convert, InitGivesTheDefaultsOfCpp) {
    using Cpp = typename Members<TypeParam>::Cpp;
    auto c = initialised<TypeParam>();
    EXPECT_EQ(c.struct_size, sizeof c);
    const Cpp defaults{}, converted = convert(c);
    for_each_member<TypeParam>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) {
            const auto& value = defaults.*member.cpp;
            SCOPED_TRACE(member.name);
            if constexpr (requires { value == value; }) {
                EXPECT_TRUE(converted.*member.cpp == value);
            } else if constexpr (requires { value.given(); }) {
                EXPECT_FALSE((converted.*member.cpp).given());
            }
        }
    });
}

TYPED_TEST(Convert, AnEnumeratorOrFlagOutOfRangeIsNamed) {
    for_each_member<TypeParam>([&](const auto& member) {
        if constexpr (requires { member.cpp; }) {
            using CppType = std::remove_cvref_t<decltype(typename Members<TypeParam>::Cpp{}.*member.cpp)>;
            if constexpr (std::is_enum_v<CppType> || std::is_same_v<CppType, bool>) {
                for (const std::int32_t value : {-1, 10}) {
                    auto c = initialised<TypeParam>();
                    c.*member.c = value;
                    const std::string message = message_of([&] { static_cast<void>(convert(c)); });
                    EXPECT_EQ(message.rfind(object_of<TypeParam>() + member.name + ": expected 0 ", 0), 0U) << message;
                    EXPECT_NE(message.find(", got " + std::to_string(value)), std::string::npos) << message;
                }
            }
        }
    });
}

TYPED_TEST(Convert, AReservedMemberIsZero) {
    if constexpr (requires(TypeParam c) { c.reserved; }) {
        auto c = initialised<TypeParam>();
        c.reserved = 1;
        const std::string message = message_of([&] { static_cast<void>(convert(c)); });
        EXPECT_NE(message.find(".reserved: expected 0, got 1"), std::string::npos) << message;
    }
}

}  // namespace
}  // namespace smlora::capi::test
