// Fits the LoRA adapter of one Mixture-of-Experts projection to a teacher with plain SGD.
//
//   train [--device cpu|cuda] [--steps 200] [--tokens 512]
//
// Student and teacher share the frozen weight W; the teacher has an adapter of its own, which the student must find.
// Every step draws a fresh batch, routes it, and runs forward, backward_input and backward_lora through smlora. The
// loss and the SGD step stay on the host, where a real program would have its framework; they are part of the time
// shown.
#include <smlora/smlora.hpp>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

namespace {

constexpr std::int64_t E = 8, K = 128, N = 128, R = 8, top_k = 2;
constexpr float scaling = 2.0F, learning_rate = 0.2F;

struct Bf16 {
    std::uint16_t bits = 0;

    Bf16() = default;
    Bf16(float value) {  // to the nearest, ties to even
        const auto wide = std::bit_cast<std::uint32_t>(value);
        bits = static_cast<std::uint16_t>((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16);
    }
    operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// A tensor on the engine's device, and the host's copy of its values.
template <class T>
struct Storage {
    static constexpr smlora::DType dtype = std::is_same_v<T, Bf16>    ? smlora::DType::bf16
                                           : std::is_same_v<T, float> ? smlora::DType::fp32
                                                                      : smlora::DType::int32;
    smlora::Tensor view;
    std::vector<T> host;
    smlora::Buffer buffer;

    Storage(const smlora::Engine& engine, std::initializer_list<std::int64_t> shape)
        : view(nullptr, dtype, shape),
          host(static_cast<std::size_t>(view.numel())),
          buffer(engine, host.size() * sizeof(T)) {
        view.data = buffer.data();
    }
    void upload() { buffer.copy_from_host(host.data(), buffer.bytes()); }
    void download() { buffer.copy_to_host(host.data(), buffer.bytes()); }
};

std::mt19937 generator(1);

template <class T>
void draw_normal(Storage<T>& storage, float deviation) {
    std::normal_distribution<float> normal(0.0F, deviation);
    for (T& value : storage.host) value = normal(generator);
    storage.upload();
}

/// Two different experts for each token, and gates that add up to 1.
void draw_routing(Storage<std::int32_t>& top_idx, Storage<float>& gates) {
    std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
    for (std::size_t t = 0; t < gates.host.size(); t += top_k) {
        const auto first = static_cast<std::int32_t>(generator() % E);
        const auto step = static_cast<std::int32_t>(1 + generator() % (E - 1));
        top_idx.host[t] = first;
        top_idx.host[t + 1] = (first + step) % static_cast<std::int32_t>(E);
        gates.host[t] = uniform(generator);
        gates.host[t + 1] = 1.0F - gates.host[t];
    }
    top_idx.upload();
    gates.upload();
}

/// loss = |y - target|^2 / (2 T), summed over the outputs; dy is its gradient.
double loss_and_gradient(Storage<Bf16>& y, Storage<Bf16>& target, Storage<Bf16>& dy, std::int64_t T) {
    y.download();
    target.download();
    double sum = 0;
    for (std::size_t i = 0; i < y.host.size(); ++i) {
        const float difference = y.host[i] - target.host[i];
        sum += static_cast<double>(difference) * difference;
        dy.host[i] = difference / static_cast<float>(T);
    }
    dy.upload();
    return sum / (2.0 * static_cast<double>(T));
}

void sgd(Storage<float>& parameters, Storage<float>& gradient) {
    gradient.download();
    for (std::size_t i = 0; i < parameters.host.size(); ++i) parameters.host[i] -= learning_rate * gradient.host[i];
    parameters.upload();
}

int train(smlora::Backend backend, std::int64_t steps, std::int64_t T) {
    smlora::EngineOptions options;
    options.backend = backend;
    const smlora::Engine engine(options);
    const smlora::Stream stream;

    smlora::Problem problem;  // x, W and y in bf16
    problem.E = E, problem.K = K, problem.N = N, problem.R = R, problem.top_k = top_k;
    problem.adapter_dtype = smlora::DType::fp32;
    problem.y_rows = smlora::RowOrder::token;  // y [T, N]: the rows of a token are summed ..
    problem.gates = true;                      // .. with its gates
    const std::int64_t M = T * top_k, padded_rank = smlora::padded_rank(problem);

    Storage<std::int32_t> top_idx(engine, {T, top_k}), experts(engine, {M}), scattered(engine, {M}),
        offsets(engine, {E});
    Storage<float> gates(engine, {T, top_k}), A(engine, {E, R, K}), B(engine, {E, N, R}), dA(engine, {E, R, K});
    Storage<float> dB(engine, {E, N, R}), teacher_A(engine, {E, R, K}), teacher_B(engine, {E, N, R});
    Storage<Bf16> x(engine, {T, K}), W(engine, {E, K, N}), y(engine, {T, N}), target(engine, {T, N});
    Storage<Bf16> dx(engine, {T, K}), dy(engine, {T, N}), xa(engine, {M, padded_rank}), yb(engine, {M, padded_rank});
    xa.view.shape[1] = yb.view.shape[1] = R;  // the padding stays in the row stride

    const float unit_rows = 1.0F / std::sqrt(static_cast<float>(K));
    draw_normal(W, unit_rows);
    draw_normal(teacher_A, unit_rows);
    draw_normal(teacher_B, 0.5F / std::sqrt(static_cast<float>(R)));
    draw_normal(A, unit_rows);
    B.upload();  // zero, as LoRA begins: the base model, unchanged

    const smlora::Routing routing{experts.view, scattered.view, offsets.view};
    smlora::ForwardArgs student;
    student.x = x.view, student.W = W.view, student.A = A.view, student.B = B.view;
    student.gates = gates.view, student.routing = routing, student.scaling = scaling;
    student.y = y.view, student.xa = xa.view;
    smlora::ForwardArgs teacher = student;
    teacher.A = teacher_A.view, teacher.B = teacher_B.view, teacher.y = target.view, teacher.xa = {};
    smlora::BackwardInputArgs input;
    input.dy = dy.view, input.W = W.view, input.A = A.view, input.B = B.view;
    input.gates = gates.view, input.routing = routing, input.scaling = scaling;
    input.dx = dx.view, input.yb = yb.view;  // dx is what the layer below would go on with
    smlora::BackwardLoraArgs lora;
    lora.x = x.view, lora.dy = dy.view, lora.xa = xa.view, lora.yb = yb.view;
    lora.gates = gates.view, lora.routing = routing, lora.scaling = scaling;
    lora.dA = dA.view, lora.dB = dB.view;

    double first_loss = 0, loss = 0;
    std::chrono::steady_clock::time_point start;
    for (std::int64_t step = 0; step <= steps; ++step) {
        draw_normal(x, 1.0F);
        draw_routing(top_idx, gates);
        smlora::route(engine, stream, problem, {top_idx.view, routing, {}});
        smlora::forward(engine, stream, problem, teacher);
        smlora::forward(engine, stream, problem, student);
        loss = loss_and_gradient(y, target, dy, T);
        smlora::backward_input(engine, stream, problem, input);
        smlora::backward_lora(engine, stream, problem, lora);
        sgd(A, dA);
        sgd(B, dB);

        if (step % 25 == 0) std::printf("step %4lld  loss %.6f\n", static_cast<long long>(step), loss);
        if (step == 0) {  // has compiled the kernels, or found them in the cache
            first_loss = loss;
            start = std::chrono::steady_clock::now();
        }
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    std::printf("the loss fell by a factor of %.1f; %.0f tokens per second, loss and SGD on the host included\n",
                first_loss / loss, static_cast<double>(steps * T) / elapsed.count());
    return first_loss > 100 * loss ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        std::string device = smlora::system_info().devices.empty() ? "cpu" : "cuda";
        long long steps = 200, tokens = 512;
        for (int i = 1; i < argc; i += 2) {
            const std::string option = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
            if (option == "--device") device = value;
            if (option == "--steps") steps = std::atoll(value.c_str());
            if (option == "--tokens") tokens = std::atoll(value.c_str());
            const bool known = option == "--device" || option == "--steps" || option == "--tokens";
            if (!known || (device != "cpu" && device != "cuda") || steps < 1 || tokens < 1) {
                std::fprintf(stderr, "usage: train [--device cpu|cuda] [--steps 200] [--tokens 512]\n");
                return 2;
            }
        }
        std::printf("training on the %s\n", device == "cpu" ? "CPU" : "GPU");
        return train(device == "cpu" ? smlora::Backend::cpu : smlora::Backend::cuda, steps, tokens);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "train: %s\n", error.what());
        return 1;
    }
}
