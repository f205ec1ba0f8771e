// One gate and the value beside it: the activation and its two derivatives, in fp32.
#pragma once

namespace smlora {

/// The values are those of smlora::Activation in the public interface.
enum ActivationKind : int {
    activation_swiglu = 0,
    activation_geglu = 1,
    activation_geglu_tanh = 2,
    activation_reglu = 3,
    activation_swiglu_clamped = 4
};

/// What a gate makes of itself, and the derivative of that.
struct GateValue {
    float value;
    float slope;
};

/// g sigmoid(alpha g).
__device__ __forceinline__ GateValue silu(float g, float alpha) {
    const float sigmoid = 1.0F / (1.0F + expf(-alpha * g));
    return {g * sigmoid, sigmoid * (1.0F + alpha * g * (1.0F - sigmoid))};
}

/// g Phi(g), Phi the normal distribution.
__device__ __forceinline__ GateValue gelu(float g) {
    constexpr float one_over_sqrt_2 = 0.70710678F;
    constexpr float one_over_sqrt_2_pi = 0.39894228F;
    const float share = 0.5F * (1.0F + erff(g * one_over_sqrt_2));
    return {g * share, share + g * one_over_sqrt_2_pi * expf(-0.5F * g * g)};
}

__device__ __forceinline__ GateValue gelu_tanh(float g) {
    constexpr float sqrt_2_over_pi = 0.79788456F;
    constexpr float cubic = 0.044715F;
    const float t = tanhf(sqrt_2_over_pi * (g + cubic * g * g * g));
    const float slope_inside = sqrt_2_over_pi * (1.0F + 3.0F * cubic * g * g);
    return {0.5F * g * (1.0F + t), 0.5F * (1.0F + t) + 0.5F * g * (1.0F - t * t) * slope_inside};
}

/// Clamps that leave a NaN as it is, where fminf and fmaxf would give the bound.
__device__ __forceinline__ float at_most(float value, float bound) { return value > bound ? bound : value; }
__device__ __forceinline__ float at_least(float value, float bound) { return value < bound ? bound : value; }

/// a(g, u), da/dg and da/du.
struct Gated {
    float value;
    float d_gate;
    float d_up;
};

template <int Kind>
__device__ __forceinline__ Gated gated(float g, float u, float alpha, float limit) {
    if constexpr (Kind == activation_swiglu_clamped) {
        const GateValue gate = silu(at_most(g, limit), alpha);
        const float up = at_most(at_least(u, -limit), limit) + 1.0F;
        return {gate.value * up, g > limit ? 0.0F : gate.slope * up, fabsf(u) > limit ? 0.0F : gate.value};
    } else {
        GateValue gate{};
        if constexpr (Kind == activation_swiglu) gate = silu(g, 1.0F);
        if constexpr (Kind == activation_geglu) gate = gelu(g);
        if constexpr (Kind == activation_geglu_tanh) gate = gelu_tanh(g);
        if constexpr (Kind == activation_reglu) gate = {at_least(g, 0.0F), g > 0.0F ? 1.0F : 0.0F};
        return {gate.value * u, gate.slope * u, gate.value};
    }
}

}  // namespace smlora
