// The init functions of the C structs. The defaults are those of the C++ structs, read off them.
#include "capi/boundary.hpp"

#include <smlora/smlora.hpp>

namespace {

using smlora::capi::init_struct;

smlora_problem default_problem() {
    const smlora::Problem defaults;
    smlora_problem problem{};
    problem.top_k = defaults.top_k;
    problem.dtype = static_cast<smlora_dtype>(defaults.dtype);
    problem.adapter_dtype = static_cast<smlora_dtype>(defaults.adapter_dtype);
    problem.gate_dtype = static_cast<smlora_dtype>(defaults.gate_dtype);
    problem.index_dtype = static_cast<smlora_dtype>(defaults.index_dtype);
    problem.weight_layout = static_cast<smlora_weight_layout>(defaults.weight_layout);
    problem.x_rows = static_cast<smlora_row_order>(defaults.x_rows);
    problem.y_rows = static_cast<smlora_row_order>(defaults.y_rows);
    return problem;
}

template <class Args>
Args args_with_scaling(float scaling) {
    Args args{};
    args.scaling = scaling;
    return args;
}

template <class CArgs, class Args>
CArgs args_with_activation(const Args& defaults) {
    CArgs args{};
    args.activation = static_cast<smlora_activation_kind>(defaults.activation);
    args.layout = static_cast<smlora_gate_layout>(defaults.layout);
    args.alpha = defaults.alpha;
    args.limit = defaults.limit;
    return args;
}

}  // namespace

extern "C" {

void smlora_problem_init(smlora_problem* problem, size_t struct_size) {
    init_struct(problem, struct_size, default_problem());
}

void smlora_engine_options_init(smlora_engine_options* options, size_t struct_size) {
    smlora_engine_options defaults{};
    defaults.backend = static_cast<smlora_backend>(smlora::Backend::cuda);
    init_struct(options, struct_size, defaults);
}

void smlora_prewarm_options_init(smlora_prewarm_options* options, size_t struct_size) {
    init_struct(options, struct_size, smlora_prewarm_options{});
}

void smlora_tune_options_init(smlora_tune_options* options, size_t struct_size) {
    smlora_tune_options defaults{};
    defaults.seconds = smlora::TuneOptions{}.seconds;
    defaults.rounds = smlora::TuneOptions{}.rounds;
    init_struct(options, struct_size, defaults);
}

void smlora_route_args_init(smlora_route_args* args, size_t struct_size) {
    init_struct(args, struct_size, smlora_route_args{});
}

void smlora_group_args_init(smlora_group_args* args, size_t struct_size) {
    init_struct(args, struct_size, smlora_group_args{});
}

void smlora_combine_args_init(smlora_combine_args* args, size_t struct_size) {
    init_struct(args, struct_size, smlora_combine_args{});
}

void smlora_combine_backward_args_init(smlora_combine_backward_args* args, size_t struct_size) {
    init_struct(args, struct_size, smlora_combine_backward_args{});
}

void smlora_activation_args_init(smlora_activation_args* args, size_t struct_size) {
    init_struct(args, struct_size, args_with_activation<smlora_activation_args>(smlora::ActivationArgs{}));
}

void smlora_activation_backward_args_init(smlora_activation_backward_args* args, size_t struct_size) {
    init_struct(args, struct_size,
                args_with_activation<smlora_activation_backward_args>(smlora::ActivationBackwardArgs{}));
}

void smlora_forward_args_init(smlora_forward_args* args, size_t struct_size) {
    init_struct(args, struct_size, args_with_scaling<smlora_forward_args>(smlora::ForwardArgs{}.scaling));
}

void smlora_backward_input_args_init(smlora_backward_input_args* args, size_t struct_size) {
    init_struct(args, struct_size, args_with_scaling<smlora_backward_input_args>(smlora::BackwardInputArgs{}.scaling));
}

void smlora_backward_lora_args_init(smlora_backward_lora_args* args, size_t struct_size) {
    init_struct(args, struct_size, args_with_scaling<smlora_backward_lora_args>(smlora::BackwardLoraArgs{}.scaling));
}

}  // extern "C"
