// The operations and their workspace queries.
#include "capi/convert.hpp"
#include "capi/handles.hpp"

namespace {

using namespace smlora;
using namespace smlora::capi;

template <auto operation, class Args>
smlora_status run(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem, const Args* args) {
    return guarded([&] { operation(to_engine(engine), Stream{stream}, to_problem(problem), to_args(args)); });
}

template <auto query>
smlora_status ask(smlora_engine* engine, const smlora_problem* problem, std::int64_t T, std::size_t* bytes) {
    return guarded([&] { required(bytes, "bytes") = query(to_engine(engine), to_problem(problem), T); });
}

}  // namespace

extern "C" {

smlora_status smlora_route(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                           const smlora_route_args* args) {
    return run<route>(engine, stream, problem, args);
}

smlora_status smlora_route_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T, size_t* bytes) {
    return ask<route_workspace>(engine, problem, T, bytes);
}

smlora_status smlora_group(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                           const smlora_group_args* args) {
    return run<group>(engine, stream, problem, args);
}

smlora_status smlora_combine(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                             const smlora_combine_args* args) {
    return run<combine>(engine, stream, problem, args);
}

smlora_status smlora_combine_backward(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                      const smlora_combine_backward_args* args) {
    return run<combine_backward>(engine, stream, problem, args);
}

smlora_status smlora_activation(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                const smlora_activation_args* args) {
    return run<activation>(engine, stream, problem, args);
}

smlora_status smlora_activation_backward(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                         const smlora_activation_backward_args* args) {
    return run<activation_backward>(engine, stream, problem, args);
}

smlora_status smlora_arrange_scales(smlora_engine* engine, smlora_stream stream,
                                    const smlora_arrange_scales_args* args) {
    return guarded([&] { arrange_scales(to_engine(engine), Stream{stream}, to_args(args)); });
}

smlora_status smlora_dequantize(smlora_engine* engine, smlora_stream stream, const smlora_dequantize_args* args) {
    return guarded([&] { dequantize(to_engine(engine), Stream{stream}, to_args(args)); });
}

smlora_status smlora_forward(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                             const smlora_forward_args* args) {
    return run<forward>(engine, stream, problem, args);
}

smlora_status smlora_forward_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T, size_t* bytes) {
    return ask<forward_workspace>(engine, problem, T, bytes);
}

smlora_status smlora_scatter2scatter(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                     const smlora_forward_args* args) {
    return run<scatter2scatter>(engine, stream, problem, args);
}

smlora_status smlora_backward_input(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                    const smlora_backward_input_args* args) {
    return run<backward_input>(engine, stream, problem, args);
}

smlora_status smlora_backward_input_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T,
                                              size_t* bytes) {
    return ask<backward_input_workspace>(engine, problem, T, bytes);
}

smlora_status smlora_backward_lora(smlora_engine* engine, smlora_stream stream, const smlora_problem* problem,
                                   const smlora_backward_lora_args* args) {
    return run<backward_lora>(engine, stream, problem, args);
}

smlora_status smlora_backward_lora_workspace(smlora_engine* engine, const smlora_problem* problem, int64_t T,
                                             size_t* bytes) {
    return ask<backward_lora_workspace>(engine, problem, T, bytes);
}

}  // extern "C"
