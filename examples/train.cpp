// Fits the LoRA adapter of one Mixture-of-Experts projection to a teacher with plain SGD.
//
//   train [--device cpu|cuda] [--steps 300] [--tokens 512]
//
// Student and teacher share the frozen weight W; the teacher has an adapter of its own, which the student must find.
// Every step draws a fresh batch, routes it, and runs forward, backward_input and backward_lora through smlora. The loss
// and the SGD step stay on the host, where a real program would have its framework; they are part of the time shown.
#include <smlora/smlora.hpp>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr std::int64_t E = 8, K = 128, N = 128, R = 8, top_k = 2;
constexpr float scaling = 2.0F, learning_rate = 0.5F;

using Values = std::vector<float>;

std::mt19937 generator(1);

Values normal(std::int64_t count, float deviation) {
    std::normal_distribution<float> distribution(0.0F, deviation);
    Values values(static_cast<std::size_t>(count));
    for (float& value : values) value = distribution(generator);
    return values;
}

std::uint16_t to_bf16(float value) {  // to the nearest, ties to even
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(std::uint16_t half) { return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16); }

/// Memory of the engine's device with a view of it. Values pass through the host as fp32.
struct Storage {
    smlora::Buffer buffer;
    smlora::Tensor view;

    Storage(const smlora::Engine& engine, smlora::DType dtype, std::initializer_list<std::int64_t> shape)
        : view(nullptr, dtype, shape) {
        buffer = smlora::Buffer(engine, static_cast<std::size_t>(view.numel()) * smlora::size_of(dtype));
        view.data = buffer.data();
    }

    void set(const Values& values) {
        if (view.dtype == smlora::DType::bf16) {
            std::vector<std::uint16_t> halves(values.size());
            std::transform(values.begin(), values.end(), halves.begin(), to_bf16);
            buffer.copy_from_host(halves.data(), buffer.bytes());
        } else {
            buffer.copy_from_host(values.data(), buffer.bytes());
        }
    }

    [[nodiscard]] Values get() const {
        Values values(static_cast<std::size_t>(view.numel()));
        if (view.dtype == smlora::DType::bf16) {
            std::vector<std::uint16_t> halves(values.size());
            buffer.copy_to_host(halves.data(), buffer.bytes());
            std::transform(halves.begin(), halves.end(), values.begin(), from_bf16);
        } else {
            buffer.copy_to_host(values.data(), buffer.bytes());
        }
        return values;
    }
};

/// Each token's top_k different experts, and softmax gates.
void draw_routing(std::vector<std::int32_t>& top_idx, Values& gates) {
    std::vector<std::int32_t> experts(E);
    for (std::size_t t = 0; t < gates.size(); t += top_k) {
        for (std::size_t e = 0; e < E; ++e) experts[e] = static_cast<std::int32_t>(e);
        std::shuffle(experts.begin(), experts.end(), generator);
        std::copy_n(experts.begin(), top_k, top_idx.begin() + static_cast<std::ptrdiff_t>(t));
        const Values logits = normal(top_k, 1.0F);
        float sum = 0;
        for (std::size_t j = 0; j < top_k; ++j) sum += gates[t + j] = std::exp(logits[j]);
        for (std::size_t j = 0; j < top_k; ++j) gates[t + j] /= sum;
    }
}

void sgd(Values& parameters, const Values& gradient, Storage& storage) {
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i] -= learning_rate * gradient[i];
    storage.set(parameters);
}

int train(smlora::Backend backend, std::int64_t steps, std::int64_t T) {
    using smlora::DType;
    const smlora::Engine engine({.backend = backend});
    const smlora::Stream stream;

    smlora::Problem problem;
    problem.E = E, problem.K = K, problem.N = N, problem.R = R, problem.top_k = top_k;
    problem.adapter_dtype = DType::fp32;                // x, W and y are bf16
    problem.y_rows = smlora::RowOrder::token;           // y [T, N]: a token's experts are summed ..
    problem.gates = true;                               // .. with its gates
    const std::int64_t M = T * top_k, padded_rank = smlora::padded_rank(problem);

    Storage x(engine, DType::bf16, {T, K}), W(engine, DType::bf16, {E, K, N}), gates(engine, DType::fp32, {T, top_k});
    Storage A(engine, DType::fp32, {E, R, K}), B(engine, DType::fp32, {E, N, R});
    Storage teacher_A(engine, DType::fp32, {E, R, K}), teacher_B(engine, DType::fp32, {E, N, R});
    Storage y(engine, DType::bf16, {T, N}), target(engine, DType::bf16, {T, N}), dy(engine, DType::bf16, {T, N});
    Storage dx(engine, DType::bf16, {T, K}), dA(engine, DType::fp32, {E, R, K}), dB(engine, DType::fp32, {E, N, R});
    Storage xa(engine, DType::bf16, {M, padded_rank}), yb(engine, DType::bf16, {M, padded_rank});
    Storage top_idx(engine, DType::int32, {T, top_k}), experts(engine, DType::int32, {M});
    Storage scattered(engine, DType::int32, {M}), offsets(engine, DType::int32, {E});
    xa.view.shape[1] = yb.view.shape[1] = R;  // the padding stays in the row stride
    const smlora::Routing routing{experts.view, scattered.view, offsets.view};

    W.set(normal(E * K * N, 1.0F / std::sqrt(static_cast<float>(K))));
    teacher_A.set(normal(E * R * K, 1.0F / std::sqrt(static_cast<float>(K))));
    teacher_B.set(normal(E * N * R, 0.5F / std::sqrt(static_cast<float>(R))));
    Values host_A = normal(E * R * K, 1.0F / std::sqrt(static_cast<float>(K)));
    Values host_B(static_cast<std::size_t>(E * N * R), 0.0F);  // as LoRA begins: the base model, unchanged
    A.set(host_A);
    B.set(host_B);

    Values host_gates(static_cast<std::size_t>(M)), host_dy(static_cast<std::size_t>(T * N));
    std::vector<std::int32_t> host_top_idx(static_cast<std::size_t>(M));
    double first_loss = 0, loss = 0;
    auto start = std::chrono::steady_clock::now();
    for (std::int64_t step = 0; step <= steps; ++step) {
        x.set(normal(T * K, 1.0F));
        draw_routing(host_top_idx, host_gates);
        gates.set(host_gates);
        top_idx.buffer.copy_from_host(host_top_idx.data(), top_idx.buffer.bytes());
        smlora::route(engine, stream, problem, {.top_idx = top_idx.view, .routing = routing});

        smlora::ForwardArgs forward{.x = x.view, .W = W.view, .A = teacher_A.view, .B = teacher_B.view,
                                    .gates = gates.view, .routing = routing, .scaling = scaling, .y = target.view};
        smlora::forward(engine, stream, problem, forward);
        forward.A = A.view, forward.B = B.view, forward.y = y.view, forward.xa = xa.view;
        smlora::forward(engine, stream, problem, forward);

        // loss = |y - target|^2 / (2 T), summed over the outputs; dy is its gradient.
        const Values host_y = y.get(), host_target = target.get();
        loss = 0;
        for (std::size_t i = 0; i < host_dy.size(); ++i) {
            host_dy[i] = (host_y[i] - host_target[i]) / static_cast<float>(T);
            loss += 0.5 * static_cast<double>(T) * host_dy[i] * host_dy[i];
        }
        dy.set(host_dy);

        smlora::backward_input(engine, stream, problem,  // dx is what the layer below would go on with
                               {.dy = dy.view, .W = W.view, .A = A.view, .B = B.view, .gates = gates.view,
                                .routing = routing, .scaling = scaling, .dx = dx.view, .yb = yb.view});
        smlora::backward_lora(engine, stream, problem,
                              {.x = x.view, .dy = dy.view, .gates = gates.view, .routing = routing,
                               .scaling = scaling, .xa = xa.view, .yb = yb.view, .dA = dA.view, .dB = dB.view});
        sgd(host_A, dA.get(), A);
        sgd(host_B, dB.get(), B);

        if (step == 0) {  // has compiled the kernels, or found them in the cache
            first_loss = loss;
            start = std::chrono::steady_clock::now();
        }
        if (step % 25 == 0) std::printf("step %4lld  loss %.6f\n", static_cast<long long>(step), loss);
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::printf("the loss fell by a factor of %.0f; %.0f tokens per second, loss and SGD on the host included\n",
                first_loss / loss, static_cast<double>(steps * T) / elapsed.count());
    return first_loss > 100 * loss ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        smlora::Backend backend = smlora::system_info().devices.empty() ? smlora::Backend::cpu : smlora::Backend::cuda;
        std::int64_t steps = 300, tokens = 512;
        for (int i = 1; i + 1 < argc; i += 2) {
            const std::string option = argv[i], value = argv[i + 1];
            if (option == "--device") backend = value == "cpu" ? smlora::Backend::cpu : smlora::Backend::cuda;
            if (option == "--steps") steps = std::stoll(value);
            if (option == "--tokens") tokens = std::stoll(value);
        }
        std::printf("training on %s\n", backend == smlora::Backend::cpu ? "the CPU" : "the GPU");
        return train(backend, steps, tokens);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "train: %s\n", error.what());
        return 1;
    }
}
