#include "nvrtc/rewrite.hpp"

#include <regex>

namespace smlora::emulator {

std::string rewrite_shared(const std::string& source) {
    // (an alignment) (a type, perhaps of several words) (a name) (dimensions)
    static const std::regex dynamic(
        R"(\bextern\s+__shared__\s+(?:__align__\((\w+)\)\s+)?([\w:<>, ]*?[\w>])\s+(\w+)\s*\[\s*\]\s*;)");
    static const std::regex variable(
        R"(\b__shared__\s+(?:__align__\((\w+)\)\s+)?([\w:<>, ]*?[\w>])\s+(\w+)\s*((?:\[[^\]]*\])*)\s*;)");
    // Without an alignment $1 is empty, and +0 is what is left.
    const std::string without_dynamic = std::regex_replace(
        source, dynamic, "$2* const $3 = reinterpret_cast<$2*>(::smlora::emulator::dynamic_shared<$2>($1+0));");
    return std::regex_replace(without_dynamic, variable,
                              "static const char $3_key = 0; using $3_type = $2 $4; auto& $3 = "
                              "::smlora::emulator::static_shared<$3_type>(&$3_key, $1+0);");
}

std::vector<KernelDeclaration> kernels_of(const std::string& source) {
    static const std::regex kernel(R"(\b__global__\s+((?:void\s+|__\w+__\([^)]*\)\s+)+)(\w+)\s*\()");
    static const std::regex threads(R"(__launch_bounds__\(\s*(\w+))");
    static const std::regex cluster(R"(__cluster_dims__\(([^)]*)\))");
    std::vector<KernelDeclaration> kernels;
    for (std::sregex_iterator at(source.begin(), source.end(), kernel), end; at != end; ++at) {
        KernelDeclaration declaration;
        declaration.name = (*at)[2];
        const std::string attributes = (*at)[1];
        std::smatch found;
        if (std::regex_search(attributes, found, threads)) declaration.most_threads = found[1];
        if (std::regex_search(attributes, found, cluster)) declaration.cluster = found[1];
        kernels.push_back(declaration);
    }
    return kernels;
}

}  // namespace smlora::emulator
