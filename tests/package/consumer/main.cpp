// smlora.hpp through the installed library: an Error thrown inside is caught outside with its code.
#include <smlora/smlora.hpp>

#include <cstdio>
#include <string>

int main() {
    smlora::Problem problem;
    problem.E = 4;
    problem.K = 8;
    problem.N = 8;
    problem.R = 999;
    try {
        smlora::validate(problem);
    } catch (const smlora::Error& error) {
        const std::string message = error.what();
        std::printf("%s\n", message.c_str());
        return error.code() == smlora::ErrorCode::invalid_argument && message.find("999") != std::string::npos ? 0 : 1;
    }
    std::puts("a rank of 999 was accepted");
    return 1;
}
