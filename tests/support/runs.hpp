// The operations on a projection with fresh poisoned outputs, waited for and brought to the host.
#pragma once

#include "support/projection.hpp"

#include <smlora/memory.hpp>
#include <smlora/operations.hpp>

namespace smlora::test {

struct ForwardRun {
    Array y, xa;
};
/// forward with y and, when there is an adapter, xa.
inline ForwardRun run_forward(const Projection& p, ForwardArgs args, Stream stream = {}) {
    ForwardRun run{p.make_y(), {}};
    args.y = run.y.view();
    if (p.problem.R > 0) {
        run.xa = p.make_ranked();
        args.xa = p.ranked_view(run.xa);
    }
    forward(p.engine, stream, p.problem, args);
    synchronize(p.engine, stream);
    run.y.download();
    if (p.problem.R > 0) run.xa.download();
    return run;
}
inline ForwardRun run_forward(const Projection& p) { return run_forward(p, p.forward_args()); }

/// scatter2scatter; A and B are not passed.
inline Array run_base(const Projection& p) {
    Array y = p.make_y();
    ForwardArgs args = p.forward_args();
    args.A = {};
    args.B = {};
    args.y = y.view();
    scatter2scatter(p.engine, {}, p.problem, args);
    synchronize(p.engine, {});
    y.download();
    return y;
}

struct BackwardInputRun {
    Array dx, yb, dgates;
};
/// backward_input with dx, with yb when there is an adapter and with dgates when there are gates.
inline BackwardInputRun run_backward_input(const Projection& p, BackwardInputArgs args, Stream stream = {}) {
    BackwardInputRun run{p.make_dx(), {}, {}};
    args.dx = run.dx.view();
    if (p.problem.R > 0) {
        run.yb = p.make_ranked();
        args.yb = p.ranked_view(run.yb);
    }
    if (p.problem.gates) {
        run.dgates = p.make_dgates();
        args.dgates = run.dgates.view();
        args.x = p.x.view();
        args.bias = p.bias.view();
    }
    backward_input(p.engine, stream, p.problem, args);
    synchronize(p.engine, stream);
    run.dx.download();
    if (p.problem.R > 0) run.yb.download();
    if (p.problem.gates) run.dgates.download();
    return run;
}
inline BackwardInputRun run_backward_input(const Projection& p) {
    return run_backward_input(p, p.backward_input_args());
}

struct BackwardLoraRun {
    Array dA, dB;
};
/// backward_lora with dA and dB; xa and yb as `args` has them.
inline BackwardLoraRun run_backward_lora(const Projection& p, BackwardLoraArgs args, Stream stream = {}) {
    BackwardLoraRun run{p.make_dA(), p.make_dB()};
    args.dA = run.dA.view();
    args.dB = run.dB.view();
    backward_lora(p.engine, stream, p.problem, args);
    synchronize(p.engine, stream);
    run.dA.download();
    run.dB.download();
    return run;
}
inline BackwardLoraRun run_backward_lora(const Projection& p) { return run_backward_lora(p, p.backward_lora_args()); }

/// A training step's three calls, xa and yb handed on.
struct StepRun {
    ForwardRun forward;
    BackwardInputRun backward_input;
    BackwardLoraRun backward_lora;
};
inline StepRun run_step(const Projection& p, Stream stream = {}) {
    StepRun run;
    run.forward = run_forward(p, p.forward_args(), stream);
    run.backward_input = run_backward_input(p, p.backward_input_args(), stream);
    BackwardLoraArgs args = p.backward_lora_args();
    args.xa = p.ranked_view(run.forward.xa);
    args.yb = p.ranked_view(run.backward_input.yb);
    run.backward_lora = run_backward_lora(p, args, stream);
    return run;
}

}  // namespace smlora::test
