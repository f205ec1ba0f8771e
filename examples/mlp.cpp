// The experts of a layer from smlora's operations: gate_up, SwiGLU and down with LoRA adapters, forward and backward.
//
//   mlp [--device cpu|cuda]
//
// Each gradient is checked by what it predicts: a small step along it changes the loss by its own square. docs/api.md,
// "A layer from operations", is this program as a table.
#include <smlora/smlora.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <random>
#include <string>
#include <vector>

using namespace smlora;

namespace {

constexpr std::int64_t T = 24, E = 6, hidden = 64, intermediate = 48, R = 4, top_k = 2, M = T * top_k;
constexpr float scaling = 2.0F;

class Layer {
 public:
    explicit Layer(Backend backend) : engine_(EngineOptions{.backend = backend}) {
        gate_up_ = projection(hidden, 2 * intermediate);
        gate_up_.problem.y_rows = RowOrder::grouped;  // rows of an expert are neighbours between the projections
        down_ = projection(intermediate, hidden);
        down_.problem.x_rows = RowOrder::grouped;
        down_.problem.y_rows = RowOrder::token;  // the rows of a token are summed, each times its gate
        down_.problem.gates = true;

        std::vector<std::int32_t> choice(M);
        for (std::size_t f = 0; f < choice.size(); ++f) choice[f] = static_cast<std::int32_t>(f * 7 / 3 % E);
        choice.back() = -1;  // an expert on another rank: takes part in nothing
        const Tensor top_idx = tensor({T, top_k}, DType::int32);
        memory_.back().copy_from_host(choice.data(), memory_.back().bytes());
        route(engine_, stream_, gate_up_.problem, {.top_idx = top_idx, .routing = routing_, .workspace = {}});
    }

    /// <y, dy>: a loss whose gradient with respect to y is dy.
    double loss() {
        forward(engine_, stream_, gate_up_.problem, arguments(gate_up_, x, h_));
        activation(engine_, stream_, gate_up_.problem, {.h = h_, .a = a_});
        ForwardArgs last = arguments(down_, a_, y_);
        last.gates = gates;
        forward(engine_, stream_, down_.problem, last);
        synchronize(engine_, stream_);
        const std::vector<float> y = values(y_), direction = values(dy_);
        double sum = 0;
        for (std::size_t i = 0; i < y.size(); ++i) sum += static_cast<double>(y[i]) * direction[i];
        return sum;
    }

    /// Fills in every gradient, from what loss() kept: h, and xa of both projections. The activation is made again.
    void backward() {
        BackwardInputArgs last;
        last.dy = dy_, last.W = down_.W, last.A = down_.A, last.B = down_.B;
        last.routing = routing_, last.scaling = scaling;
        last.dx = da_, last.yb = down_.yb, last.before_gates = true;
        backward_input(engine_, stream_, down_.problem, last);

        ActivationBackwardArgs between{.h = h_, .da = da_, .dh = dh_, .a = a_};
        between.gates = gates, between.sorted_scattered_idxs = routing_.sorted_scattered_idxs, between.dgates = dgates;
        activation_backward(engine_, stream_, down_.problem, between);
        lora_gradients(down_, a_, dy_, gates);

        BackwardInputArgs first;
        first.dy = dh_, first.W = gate_up_.W, first.A = gate_up_.A, first.B = gate_up_.B;
        first.routing = routing_, first.scaling = scaling;
        first.dx = dx, first.yb = gate_up_.yb;
        backward_input(engine_, stream_, gate_up_.problem, first);
        lora_gradients(gate_up_, x, dh_, {});
        synchronize(engine_, stream_);
    }

    /// How much the loss changes for a step along `gradient`, over what the gradient predicts: 1 if it is right.
    double checked(const Tensor& parameter, const Tensor& gradient) {
        const std::vector<float> at = values(parameter), slope = values(gradient);
        double square = 0;
        for (const float number : slope) square += static_cast<double>(number) * number;
        const auto step = static_cast<float>(0.01 / std::sqrt(square));
        double losses[2];
        for (int side : {0, 1}) {
            std::vector<float> moved = at;
            for (std::size_t i = 0; i < at.size(); ++i) moved[i] += (side == 1 ? step : -step) * slope[i];
            assign(parameter, moved);
            losses[side] = loss();
        }
        assign(parameter, at);
        return (losses[1] - losses[0]) / (2 * static_cast<double>(step) * square);
    }

 private:
    struct Projection {
        Problem problem;
        Tensor W, A, B, xa, yb, dA, dB;
    };

    /// A tensor in memory of its own.
    Tensor tensor(std::initializer_list<std::int64_t> shape, DType dtype = DType::fp32) {
        Tensor view(nullptr, dtype, shape);
        view.data = memory_.emplace_back(engine_, static_cast<std::size_t>(view.numel()) * size_of(dtype)).data();
        return view;
    }

    Tensor normal(std::initializer_list<std::int64_t> shape, float deviation) {
        Tensor view = tensor(shape);
        std::normal_distribution<float> distribution(0.0F, deviation);
        std::vector<float> numbers(static_cast<std::size_t>(view.numel()));
        for (float& number : numbers) number = distribution(generator_);
        assign(view, numbers);
        return view;
    }

    /// xa or yb: [M, R] with rows of padded_rank elements.
    Tensor rank_rows(const Problem& problem) {
        Tensor view = tensor({M, padded_rank(problem)});
        view.shape[1] = problem.R;
        return view;
    }

    Projection projection(std::int64_t K, std::int64_t N) {
        Projection made;
        made.problem = {
            .E = E, .K = K, .N = N, .R = R, .top_k = top_k, .dtype = DType::fp32, .adapter_dtype = DType::fp32};
        const float unit_rows = 1.0F / std::sqrt(static_cast<float>(K));
        made.W = normal({E, K, N}, unit_rows);
        made.A = normal({E, R, K}, unit_rows), made.dA = tensor({E, R, K});
        made.B = normal({E, N, R}, 0.5F), made.dB = tensor({E, N, R});
        made.xa = rank_rows(made.problem), made.yb = rank_rows(made.problem);
        return made;
    }

    ForwardArgs arguments(const Projection& of, const Tensor& rows, const Tensor& out) const {
        ForwardArgs args;
        args.x = rows, args.W = of.W, args.A = of.A, args.B = of.B;
        args.routing = routing_, args.scaling = scaling;
        args.y = out, args.xa = of.xa;
        return args;
    }

    void lora_gradients(const Projection& of, const Tensor& rows, const Tensor& out_gradient, const Tensor& its_gates) {
        BackwardLoraArgs args;
        args.x = rows, args.dy = out_gradient, args.gates = its_gates;
        args.routing = routing_, args.scaling = scaling;
        args.xa = of.xa, args.yb = of.yb, args.dA = of.dA, args.dB = of.dB;
        backward_lora(engine_, stream_, of.problem, args);
    }

    Buffer& memory_of(const Tensor& view) {
        for (Buffer& buffer : memory_)
            if (buffer.data() == view.data) return buffer;
        std::abort();
    }
    std::vector<float> values(const Tensor& view) {
        std::vector<float> numbers(static_cast<std::size_t>(view.numel()));
        memory_of(view).copy_to_host(numbers.data(), numbers.size() * sizeof(float));
        return numbers;
    }
    void assign(const Tensor& view, const std::vector<float>& numbers) {
        memory_of(view).copy_from_host(numbers.data(), numbers.size() * sizeof(float));
    }

    Engine engine_;
    Stream stream_;
    std::deque<Buffer> memory_;
    std::mt19937 generator_{1};
    Projection gate_up_, down_;
    Routing routing_{tensor({M}, DType::int32), tensor({M}, DType::int32), tensor({E}, DType::int32)};
    Tensor h_ = tensor({M, 2 * intermediate}), a_ = tensor({M, intermediate}), y_ = tensor({T, hidden});
    Tensor dy_ = normal({T, hidden}, 1.0F), da_ = tensor({M, intermediate}), dh_ = tensor({M, 2 * intermediate});

 public:
    Tensor x = normal({T, hidden}, 1.0F), dx = tensor({T, hidden});
    Tensor gates = normal({T, top_k}, 1.0F), dgates = tensor({T, top_k});
    const Projection& gate_up() const { return gate_up_; }
    const Projection& down() const { return down_; }
};

int check(Backend backend) {
    Layer layer(backend);
    std::printf("loss %.4f\n", layer.loss());
    layer.backward();
    const struct {
        const char* name;
        Tensor parameter, gradient;
    } pairs[] = {
        {"x", layer.x, layer.dx},
        {"gates", layer.gates, layer.dgates},
        {"gate_up A", layer.gate_up().A, layer.gate_up().dA},
        {"gate_up B", layer.gate_up().B, layer.gate_up().dB},
        {"down A", layer.down().A, layer.down().dA},
        {"down B", layer.down().B, layer.down().dB},
    };
    bool right = true;
    for (const auto& pair : pairs) {
        const double ratio = layer.checked(pair.parameter, pair.gradient);
        std::printf("gradient of %-9s  change over prediction %.4f\n", pair.name, ratio);
        right = right && std::abs(ratio - 1) < 0.01;
    }
    return right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        std::string device = system_info().devices.empty() ? "cpu" : "cuda";
        if (argc == 3 && std::strcmp(argv[1], "--device") == 0) device = argv[2];
        if ((argc != 1 && argc != 3) || (device != "cpu" && device != "cuda")) {
            std::fprintf(stderr, "usage: mlp [--device cpu|cuda]\n");
            return 2;
        }
        return check(device == "cpu" ? Backend::cpu : Backend::cuda);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "mlp: %s\n", error.what());
        return 1;
    }
}
