// Runs a harness without a fuzzer: on each file of the folders that are named, on every truncation of it, and with
// every bit of it flipped.
#include "harness.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

namespace {

std::string contents_of(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

void run(std::string_view bytes) {
    // A copy of the right size, so that a sanitizer sees the first byte beyond it.
    const std::basic_string<std::uint8_t> exact(bytes.begin(), bytes.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

std::size_t run_changes(std::string bytes) {
    for (std::size_t length = 0; length < bytes.size(); ++length) run(std::string_view(bytes).substr(0, length));
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        char& byte = bytes[bit / 8];
        byte = static_cast<char>(byte ^ (1 << bit % 8));
        run(bytes);
        byte = static_cast<char>(byte ^ (1 << bit % 8));
    }
    return 9 * bytes.size();
}

}  // namespace

int main(int argc, char** argv) {
    std::size_t files = 0, runs = 0;
    for (int i = 1; i < argc; ++i) {
        for (const auto& item : std::filesystem::directory_iterator(argv[i])) {
            const std::string bytes = contents_of(item.path());
            run(bytes);
            runs += 1 + run_changes(bytes);
            ++files;
        }
    }
    std::printf("%zu files, %zu runs\n", files, runs);
    return files > 0 ? 0 : 1;
}
