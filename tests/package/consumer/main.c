/* smlora.h alone, as C11: two tokens, two experts, one projection without an adapter, on the CPU. */
#include <smlora/smlora.h>

#include <stdio.h>

#define TRY(call)                                                                       \
    do {                                                                                \
        smlora_status status = (call);                                                  \
        if (status != SMLORA_OK) {                                                      \
            fprintf(stderr, "%s: %s\n", smlora_status_name(status), smlora_last_error()); \
            return 1;                                                                   \
        }                                                                               \
    } while (0)

static smlora_status vector(smlora_tensor* tensor, void* data, smlora_dtype dtype, int64_t extent) {
    return smlora_tensor_init(tensor, data, dtype, 1, &extent, NULL);
}

int main(void) {
    smlora_engine_options options;
    smlora_engine_options_init(&options, sizeof options);
    options.backend = SMLORA_BACKEND_CPU;
    smlora_engine* engine = NULL;
    TRY(smlora_engine_create(&options, &engine));

    smlora_problem problem;
    smlora_problem_init(&problem, sizeof problem);
    problem.E = 2;
    problem.K = 2;
    problem.N = 1;
    problem.dtype = SMLORA_FP32;
    problem.adapter_dtype = SMLORA_FP32;

    int32_t top_idx[2] = {1, 0}, experts[2], scattered[2], offsets[2];
    smlora_route_args route;
    smlora_route_args_init(&route, sizeof route);
    TRY(smlora_tensor_init(&route.top_idx, top_idx, SMLORA_INT32, 2, (const int64_t[]){2, 1}, NULL));
    TRY(vector(&route.routing.sorted_expert_idxs, experts, SMLORA_INT32, 2));
    TRY(vector(&route.routing.sorted_scattered_idxs, scattered, SMLORA_INT32, 2));
    TRY(vector(&route.routing.expert_offsets, offsets, SMLORA_INT32, 2));
    TRY(smlora_route(engine, NULL, &problem, &route));

    float x[4] = {1, 2, 3, 4}, W[4] = {10, 100, 1000, 10000}, y[2] = {-1, -1};
    smlora_forward_args forward;
    smlora_forward_args_init(&forward, sizeof forward);
    TRY(smlora_tensor_init(&forward.x, x, SMLORA_FP32, 2, (const int64_t[]){2, 2}, NULL));
    TRY(smlora_tensor_init(&forward.W, W, SMLORA_FP32, 3, (const int64_t[]){2, 2, 1}, NULL));
    TRY(smlora_tensor_init(&forward.y, y, SMLORA_FP32, 2, (const int64_t[]){2, 1}, NULL));
    forward.routing = route.routing;
    TRY(smlora_forward(engine, NULL, &problem, &forward));
    smlora_engine_destroy(engine);

    /* Token 0 goes to expert 1, token 1 to expert 0. */
    if (y[0] != 21000.0F || y[1] != 430.0F) {
        fprintf(stderr, "expected 21000 and 430, got %g and %g\n", (double)y[0], (double)y[1]);
        return 1;
    }
    return 0;
}
