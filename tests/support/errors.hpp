// What errors say.
#pragma once

#include <smlora/error.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>
#include <string>

namespace smlora::test {

/// The message of the error that `action` must throw, with this code.
inline std::string message_of(ErrorCode code, const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        return error.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
}

/// Of an argument that is refused.
inline std::string message_of(const std::function<void()>& action) {
    return message_of(ErrorCode::invalid_argument, action);
}

inline void expect_parts(const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) {
        EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text;
    }
}

}  // namespace smlora::test
