// Whether a test runs under a sanitizer, which makes everything slow.
#pragma once

namespace smlora::test {

#if defined(__SANITIZE_THREAD__)
constexpr bool thread_sanitized = true;
#else
constexpr bool thread_sanitized = false;
#endif

#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = thread_sanitized;
#endif

}  // namespace smlora::test
