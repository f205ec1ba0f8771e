// Environment variables, for the length of a test.
#pragma once

#include <stdlib.h>

#include <optional>
#include <string>

namespace smlora::test {

/// A variable for the length of a scope; null: unset.
class ScopedVariable {
 public:
    ScopedVariable(const char* name, const char* value) : name_(name) {
        if (const char* before = ::getenv(name)) before_ = before;
        set(value);
    }
    ~ScopedVariable() { set(before_ ? before_->c_str() : nullptr); }
    ScopedVariable(const ScopedVariable&) = delete;
    ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
    void set(const char* value) {
        if (value == nullptr) {
            ::unsetenv(name_);
        } else {
            ::setenv(name_, value, 1);
        }
    }

    const char* name_;
    std::optional<std::string> before_;
};

}  // namespace smlora::test
