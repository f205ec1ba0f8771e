// Whether a test runs under a sanitizer, which makes everything slow.
#pragma once

namespace smlora::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

}  // namespace smlora::test
