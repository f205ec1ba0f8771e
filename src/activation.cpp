#include <smlora/activation.hpp>

#include <smlora/error.hpp>

#include <fmt/format.h>

namespace smlora {

std::string_view name(Activation activation) {
    switch (activation) {
        case Activation::swiglu:
            return "swiglu";
        case Activation::geglu:
            return "geglu";
        case Activation::geglu_tanh:
            return "geglu_tanh";
        case Activation::reglu:
            return "reglu";
        case Activation::swiglu_clamped:
            return "swiglu_clamped";
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("activation: expected 0 to 4, got {}", static_cast<std::int32_t>(activation)));
}

std::string_view name(GateLayout layout) {
    switch (layout) {
        case GateLayout::halves:
            return "halves";
        case GateLayout::interleaved:
            return "interleaved";
    }
    throw Error(ErrorCode::invalid_argument,
                fmt::format("gate layout: expected 0 or 1, got {}", static_cast<std::int32_t>(layout)));
}

}  // namespace smlora
