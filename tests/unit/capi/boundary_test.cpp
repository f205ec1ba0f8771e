// Exceptions become statuses; struct sizes and null pointers are checked.
#include "capi/boundary.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using namespace smlora;
using capi::guarded;

TEST(Guarded, SuccessIsOk) {
    EXPECT_EQ(guarded([] {}), SMLORA_OK);
}

TEST(Guarded, EveryErrorCodeHasTheStatusOfItsNumberAndName) {
    const struct {
        ErrorCode code;
        smlora_status status;
        const char* name;
    } cases[] = {{ErrorCode::invalid_argument, SMLORA_INVALID_ARGUMENT, "invalid_argument"},
                 {ErrorCode::unsupported, SMLORA_UNSUPPORTED, "unsupported"},
                 {ErrorCode::no_device, SMLORA_NO_DEVICE, "no_device"},
                 {ErrorCode::cuda, SMLORA_CUDA, "cuda"},
                 {ErrorCode::compile, SMLORA_COMPILE, "compile"},
                 {ErrorCode::io, SMLORA_IO, "io"},
                 {ErrorCode::not_ready, SMLORA_NOT_READY, "not_ready"},
                 {ErrorCode::internal, SMLORA_INTERNAL, "internal"},
                 {ErrorCode::jit_off, SMLORA_JIT_OFF, "jit_off"},
                 {ErrorCode::forked, SMLORA_FORKED, "forked"}};
    for (const auto& c : cases) {
        const std::string message = std::string("message of ") + c.name;
        EXPECT_EQ(guarded([&] { throw Error(c.code, message); }), c.status);
        EXPECT_EQ(smlora_last_error(), message);
        EXPECT_STREQ(smlora_status_name(c.status), c.name);
    }
}

TEST(Guarded, BadAllocIsOutOfMemory) {
    EXPECT_EQ(guarded([] { throw std::bad_alloc(); }), SMLORA_OUT_OF_MEMORY);
    EXPECT_STREQ(smlora_last_error(), "host memory ran out");
    EXPECT_STREQ(smlora_status_name(SMLORA_OUT_OF_MEMORY), "out_of_memory");
}

TEST(Guarded, OtherExceptionsAreInternalAndKeepTheirMessage) {
    EXPECT_EQ(guarded([] { throw std::runtime_error("the index broke"); }), SMLORA_INTERNAL);
    EXPECT_STREQ(smlora_last_error(), "the index broke");
}

TEST(Guarded, WhatIsNoExceptionClassIsInternalToo) {
    EXPECT_EQ(guarded([] { throw 42; }), SMLORA_INTERNAL);
    EXPECT_STREQ(smlora_last_error(), "an exception of unknown type");
}

TEST(LastError, SuccessLeavesItAlone) {
    guarded([] { throw std::runtime_error("first"); });
    EXPECT_EQ(guarded([] {}), SMLORA_OK);
    EXPECT_STREQ(smlora_last_error(), "first");
}

TEST(LastError, IsEachThreadsOwn) {
    guarded([] { throw std::runtime_error("of the main thread"); });
    std::string before, after;
    std::thread([&] {
        before = smlora_last_error();
        guarded([] { throw std::runtime_error("of the other thread"); });
        after = smlora_last_error();
    }).join();
    EXPECT_EQ(before, "");
    EXPECT_EQ(after, "of the other thread");
    EXPECT_STREQ(smlora_last_error(), "of the main thread");
}

TEST(StatusName, OkAndUnknown) {
    EXPECT_STREQ(smlora_status_name(SMLORA_OK), "ok");
    EXPECT_STREQ(smlora_status_name(77), "unknown");
    EXPECT_STREQ(smlora_status_name(-1), "unknown");
}

struct Example {
    size_t struct_size;
    std::int64_t first;
    std::int64_t second;
};

struct LaterExample {
    Example known;
    std::int64_t third;
};

smlora_status read(const Example* example) {
    return guarded([&] { static_cast<void>(capi::read_struct(example, "example")); });
}

TEST(ReadStruct, TakesAStructOfItsOwnSize) {
    const Example example{sizeof(Example), 1, 2};
    const Example known = capi::read_struct(&example, "example");
    EXPECT_EQ(known.first, 1);
    EXPECT_EQ(known.second, 2);
}

TEST(ReadStruct, RefusesNull) {
    EXPECT_EQ(read(nullptr), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(), "example: expected a pointer, got null");
}

TEST(ReadStruct, RefusesAStructThatWasNeverInitialised) {
    const Example example{0, 1, 2};
    EXPECT_EQ(read(&example), SMLORA_INVALID_ARGUMENT);
    EXPECT_STREQ(smlora_last_error(),
                 "example.struct_size: expected at least 24, got 0; start the struct with its init function");
}

TEST(ReadStruct, TakesALaterStructWhoseUnknownMembersAreZero) {
    LaterExample later{{sizeof(LaterExample), 1, 2}, 0};
    EXPECT_EQ(capi::read_struct(&later.known, "example").second, 2);
}

TEST(ReadStruct, TakesAnEarlierStructAndReadsNothingBeyondIt) {
    const Example earlier{offsetof(Example, second), 1, 2};
    const Example known = capi::read_struct(&earlier, "example", offsetof(Example, second));
    EXPECT_EQ(known.first, 1);
    EXPECT_EQ(known.second, 0);
}

TEST(ReadStruct, RefusesALaterStructWithAnUnknownMemberSet) {
    LaterExample later{{sizeof(LaterExample), 1, 2}, std::int64_t{1} << 56};
    EXPECT_EQ(read(&later.known), SMLORA_UNSUPPORTED);
    EXPECT_NE(std::string(smlora_last_error()).find("later smlora.h (32 bytes)"), std::string::npos);
}

TEST(InitStruct, WritesNoFurtherThanTheCallersStruct) {
    LaterExample earlier{{7, 7, 7}, 7};
    capi::init_struct(&earlier.known, sizeof(Example) - sizeof(std::int64_t), Example{0, 1, 2});
    EXPECT_EQ(earlier.known.struct_size, 16u);
    EXPECT_EQ(earlier.known.first, 1);
    EXPECT_EQ(earlier.known.second, 7);
}

TEST(InitStruct, ZeroesWhatItDoesNotKnow) {
    LaterExample later{{7, 7, 7}, 7};
    capi::init_struct(&later.known, sizeof(LaterExample), Example{0, 1, 2});
    EXPECT_EQ(later.known.struct_size, sizeof(LaterExample));
    EXPECT_EQ(later.known.second, 2);
    EXPECT_EQ(later.third, 0);
}

TEST(InitStruct, TakesNull) { capi::init_struct<Example>(nullptr, sizeof(Example), {}); }

}  // namespace
