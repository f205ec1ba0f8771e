#!/usr/bin/env python3
"""Times what the host does for a warm step, forward and backward, through PyTorch. The CPU backend runs the operations on no
rows, so that there is nothing to compute.

    python benchmarks/host_steps.py
    python benchmarks/host_steps.py --package before --package after     folders with a smlora/ in them, compared

Microseconds of the thread's own time, so that other processes matter little: the median of the fastest fifth of all blocks
of steps, and of a package the least of its processes, which take turns with those of the others."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

E, K, I, R, TOP_K = 4, 32, 32, 4, 2
BLOCK = 4


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", default=[], metavar="FOLDER", help="the installed one unless given")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000, help="of each operation and process (%(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="processes of each package (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one process, its times as JSON")
    return parser.parse_args()


def steps_of(dtype, T):
    """Functions by name, the trained tensors in the name."""
    import smlora
    import torch

    dtype = getattr(torch, dtype)
    M = T * TOP_K
    choices = torch.stack([torch.randperm(E)[:TOP_K] for _ in range(T)]) if T else torch.empty(0, TOP_K, dtype=torch.int64)
    routing = smlora.route(choices, E)

    def tensor(*shape):
        return torch.randn(shape).to(dtype)

    def step(function, tensors, trained):
        """`function` of the tensors by name, and the gradients of those that are trained."""
        leaves = [tensors[name].requires_grad_() for name in trained]
        if not leaves:
            return lambda: function(**tensors)
        dout = torch.randn_like(function(**tensors))
        return lambda: torch.autograd.grad(function(**tensors), leaves, dout)

    def linear(x, A, B):
        return smlora.moe_lora_linear(x, W, routing, A, B, scaling=2.0)

    def mlp(x, A1, B1, A2, B2, gates):
        return smlora.moe_lora_mlp(x, W_up, W_down, routing, gates, gate_up_lora=(A1, B1, 2.0), down_lora=(A2, B2, 2.0))

    W, W_up, W_down = tensor(E, K, I), tensor(E, K, 2 * I), tensor(E, I, K)
    operations = {
        "linear": (linear, {"x": (T, K), "A": (E, R, K), "B": (E, I, R)}, ["x A B", "A B", "x", ""]),
        "mlp": (mlp, {"x": (T, K), "A1": (E, R, K), "B1": (E, 2 * I, R), "A2": (E, R, I), "B2": (E, K, R), "gates": (T, TOP_K)},
                ["x A1 B1 A2 B2 gates", "x A1 B1 A2 B2", "A1 B1 A2 B2", "x gates", ""]),
        "gated_activation": (smlora.gated_activation, {"h": (M, 2 * I)}, ["h"]),
        "combine": (smlora.combine, {"y": (M, K), "gates": (T, TOP_K)}, ["y gates", "y"]),
        "group": (lambda x: smlora.group(x, routing), {"x": (T, K)}, ["x"]),
    }
    return {
        f"{name}: {trained or 'forward alone'}": step(function, {n: tensor(*s) for n, s in shapes.items()}, trained.split())
        for name, (function, shapes, variants) in operations.items()
        for trained in variants
    }


def microseconds(step, count):
    for _ in range(100):
        step()
    blocks = []
    for _ in range(max(1, count // BLOCK)):
        start = time.thread_time_ns()
        for _ in range(BLOCK):
            step()
        blocks.append((time.thread_time_ns() - start) / BLOCK / 1000)
    blocks.sort()
    return statistics.median(blocks[: max(1, len(blocks) // 5)])


def measure_here(arguments):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return {name: microseconds(step, arguments.steps) for name, step in steps_of(arguments.dtype, arguments.tokens).items()}


def measure_in_process(package, arguments):
    environment = dict(os.environ)
    if package:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
    command = [sys.executable, __file__, "--json", f"--dtype={arguments.dtype}", f"--tokens={arguments.tokens}",
               f"--steps={arguments.steps}"]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def main():
    arguments = parse_arguments()
    if arguments.json:
        print(json.dumps(measure_here(arguments)))
        return
    packages = arguments.package or [""]
    runs = [[measure_in_process(package, arguments) for package in packages] for _ in range(arguments.repeat)]
    print(f"{'microseconds':28}" + "".join(f" {package or 'installed':>20}" for package in packages))
    for name in runs[0][0]:
        least = [min(run[i][name] for run in runs) for i in range(len(packages))]
        ratios = ["", *(f"{time / least[0]:.2f}x" for time in least[1:])]
        print(f"{name:28}" + "".join(f" {time:13.1f} {ratio:>6}" for time, ratio in zip(least, ratios)))


if __name__ == "__main__":
    main()
