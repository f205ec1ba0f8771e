// XXH3-128, the one hash of the project.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace smlora::util {

/// 32 lower-case hexadecimal digits, in XXH128's canonical byte order.
[[nodiscard]] std::string xxh128_hex(std::string_view bytes);

/// The same as 16 raw bytes.
[[nodiscard]] std::string xxh128_bytes(std::string_view bytes);

/// Hashes named fields. Each field is delimited by its name and length, so that no two different lists of fields
/// feed the hash the same bytes.
class FieldHasher {
 public:
    FieldHasher();
    ~FieldHasher();
    FieldHasher(const FieldHasher&) = delete;
    FieldHasher& operator=(const FieldHasher&) = delete;

    FieldHasher& add(std::string_view name, std::string_view value);
    [[nodiscard]] std::string hex() const;

 private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace smlora::util
