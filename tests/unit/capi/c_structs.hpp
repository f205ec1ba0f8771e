// The structs of the C interface as the tests of it fill them in.
#pragma once

#include "capi/convert.hpp"
#include "support/errors.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

namespace smlora::capi::test {

using smlora::test::message_of;

// The smallest struct sizes that are accepted are those of today: see read_struct.
#define SMLORA_INIT(name)                                    \
    inline void init(smlora_##name& c) {                     \
        std::memset(static_cast<void*>(&c), 0xab, sizeof c); \
        smlora_##name##_init(&c, sizeof c);                  \
    }
SMLORA_FOR_EACH_INPUT(SMLORA_INIT)
#undef SMLORA_INIT

/// A struct as its init function leaves it.
template <class C>
C initialised() {
    C c;
    init(c);
    return c;
}

/// A number that no other call has returned, small enough for every type.
inline int next() {
    static int count = 0;
    return ++count;
}

/// Its data, shape and strides tell which one it is.
inline smlora_tensor distinct_tensor() {
    const std::int64_t n = next();
    return {reinterpret_cast<void*>(0x1000 * n),
            static_cast<smlora_dtype>(n % 6),
            static_cast<std::int32_t>(1 + n % 4),
            {n, n + 100, n + 200, n + 300},
            {n + 1000, n + 1100, n + 1200, n + 1300}};
}

inline void expect_same(const Tensor& cpp, const smlora_tensor& c) {
    EXPECT_EQ(cpp.data, c.data);
    EXPECT_EQ(static_cast<std::int32_t>(cpp.dtype), c.dtype);
    ASSERT_EQ(cpp.ndim, c.ndim);
    for (std::size_t i = 0; i < static_cast<std::size_t>(c.ndim); ++i) {
        EXPECT_EQ(cpp.shape[i], c.shape[i]);
        EXPECT_EQ(cpp.strides[i], c.strides[i]);
    }
}

}  // namespace smlora::capi::test
