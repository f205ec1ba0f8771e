#!/usr/bin/env python3
"""Times the experts of a whole layer with adapters on both projections, forward and backward, as Transformers calls them:
smlora beside axolotl's kernels and torch's grouped_mm with PEFT.

    python benchmarks/mlp.py                                            Qwen3-30B-A3B's layer, 8192 tokens
    python benchmarks/mlp.py --layer 64,2048,1024,8 --tokens 2048 --rank 64
    python benchmarks/mlp.py --axolotl ~/axolotl --json mlp.json
    python benchmarks/mlp.py --run smlora --kernels                     where smlora's time goes, by kernel

The floor counts the FLOP of the products and the adapters' gradients, and each tensor that must move once: weights, adapters,
x, y, dy, dx, and gate and up, which are kept. Brackets have the time over the floor: 1 is the best. What is not recorded is
tuned on first use; SMLORA_TUNING=record-only takes the cost model's choice instead. Needs a GPU, Transformers, PEFT and
smlora's package."""

import argparse
import collections
import json
import sys

import peft
import torch
import transformers
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

import axolotl_kernels
import smlora.transformers
from shapes import Shape
from timing import PROTOCOLS, ceilings

IMPLEMENTATIONS = {"smlora": "smlora", "axolotl": "scattermoe", "grouped_mm": "grouped_mm"}
PROJECTIONS = ("gate_up_proj", "down_proj")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", metavar="E,HIDDEN,INTERMEDIATE,k", default="128,2048,768,8", help="[%(default)s]")
    parser.add_argument("--tokens", type=int, default=8192, help="[%(default)s]")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters [%(default)s]")
    parser.add_argument("--run", help="of smlora,grouped_mm,axolotl [all that are there]")
    parser.add_argument("--axolotl", metavar="FOLDER", help="a checkout of axolotl to take its kernels from")
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="burst", help="[%(default)s]")
    parser.add_argument("--kernels", action="store_true", help="list the time of each kernel of a step")
    parser.add_argument("--json", metavar="FILE", help="write times and floors there")
    arguments = parser.parse_args()
    arguments.run = (arguments.run or "smlora,grouped_mm" + (",axolotl" if arguments.axolotl else "")).split(",")
    unknown = [name for name in arguments.run if name not in IMPLEMENTATIONS]
    if unknown:
        parser.error(f"--run: expected some of {','.join(IMPLEMENTATIONS)}, got {','.join(unknown)}")
    if "axolotl" in arguments.run and not arguments.axolotl:
        parser.error("--run: axolotl needs --axolotl")
    return arguments


class Layer(torch.nn.Module):
    """The experts, behind a router that has chosen."""

    def __init__(self, E, hidden, intermediate, k, implementation, device):
        super().__init__()
        config = transformers.Qwen3MoeConfig(
            hidden_size=hidden, moe_intermediate_size=intermediate, num_experts=E, num_experts_per_tok=k)
        config._experts_implementation = implementation
        with torch.device(device):
            self.experts = Qwen3MoeExperts(config).to(torch.bfloat16)
        for parameter in self.experts.parameters():
            torch.nn.init.normal_(parameter, std=0.02)

    def forward(self, x, top_k_index, top_k_weights):
        return self.experts(x, top_k_index, top_k_weights)


def adapted(arguments, implementation, device="cuda"):
    E, hidden, intermediate, k = (int(n) for n in arguments.layer.split(","))
    torch.manual_seed(0)
    layer = Layer(E, hidden, intermediate, k, implementation, device)
    config = peft.LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules=[],
                             target_parameters=[f"experts.{name}" for name in PROJECTIONS])
    return peft.get_peft_model(layer, config).train()


def inputs(arguments, device="cuda"):
    E, hidden, _, k = (int(n) for n in arguments.layer.split(","))
    torch.manual_seed(1)
    x = torch.randn(arguments.tokens, hidden, device=device, dtype=torch.bfloat16, requires_grad=True)
    weights, index = torch.rand(arguments.tokens, E, device=device).topk(k)
    weights = (weights / weights.sum(-1, keepdim=True)).to(torch.bfloat16).requires_grad_()
    return x, index, weights, torch.randn_like(x)


def calls(layer, x, index, weights, dy):
    """{"forward": .., "step": ..} to be timed."""
    leaves = [x, weights, *(p for p in layer.parameters() if p.requires_grad)]

    def forward():
        return layer(x, index, weights)

    return {"forward": forward, "step": lambda: torch.autograd.grad(forward(), leaves, dy)}


def floors_ms(arguments, tflops, gbs):
    """What no implementation can be faster than that keeps gate and up, and nothing else, for the backward pass."""
    E, hidden, intermediate, k = (int(n) for n in arguments.layer.split(","))
    T, R = arguments.tokens, arguments.rank
    both = [Shape("gate_up", E, hidden, 2 * intermediate, T, k, R), Shape("down", E, intermediate, hidden, T, k, R)]
    weights = 2 * E * 3 * hidden * intermediate
    adapters = 2 * E * R * (2 * hidden + 3 * intermediate)
    tokens = 2 * T * hidden
    kept = 2 * T * k * 2 * intermediate

    def floor(operations, traffic):
        flop = sum(shape.work(operation, E)[0] for shape in both for operation in operations)
        return max(flop / tflops / 1e9, traffic / gbs / 1e6)

    forward = floor(["forward"], weights + adapters + 2 * tokens + kept)
    backward = floor(["dx", "lora_grad"], weights + 2 * adapters + 3 * tokens + kept)
    return {"forward": forward, "step": forward + backward}


def times_of_kernels(step):
    """{kernel: (microseconds, launches)} of a step."""
    from torch.profiler import ProfilerActivity, profile

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    found = collections.defaultdict(lambda: [0.0, 0])
    for event in profiled.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name][0] += event.device_time
            found[event.name][1] += 1
    return {name: tuple(pair) for name, pair in sorted(found.items(), key=lambda item: -item[1][0])}


def main():
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("mlp.py needs a GPU")
    smlora.transformers.register()
    if arguments.axolotl:
        axolotl_kernels.load(arguments.axolotl)
        axolotl_kernels.restrict_search()
        from axolotl.integrations.kernels.libs.scattermoe_lora.experts import register_scattermoe_experts

        register_scattermoe_experts()
    time_ms = PROTOCOLS[arguments.protocol]
    tflops, gbs = ceilings(time_ms)
    floors = floors_ms(arguments, tflops, gbs)
    print(f"{torch.cuda.get_device_name()}, {arguments.protocol}: {tflops:.0f} TFLOP/s, {gbs:.0f} GB/s; "
          f"layer {arguments.layer}, {arguments.tokens} tokens, rank {arguments.rank}")
    print(f"{'floor':12}" + "".join(f" {operation} {floor:8.3f} ms" for operation, floor in floors.items()))
    results = {}
    for name in arguments.run:
        timed = calls(adapted(arguments, IMPLEMENTATIONS[name]), *inputs(arguments))
        results[name] = {operation: time_ms([call]) for operation, call in timed.items()}
        print(f"{name:12}" + "".join(f" {operation} {ms:8.3f} ms ({ms / floors[operation]:.2f})"
                                     for operation, ms in results[name].items()), flush=True)
        if arguments.kernels:
            for kernel, (microseconds, launches) in times_of_kernels(timed["step"]).items():
                print(f"    {microseconds:9.1f} us {launches:3} x {kernel[:90]}")
        del timed
        torch.cuda.empty_cache()
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"layer": arguments.layer, "tokens": arguments.tokens, "rank": arguments.rank, "floors_ms": floors,
                       "ms": results}, file, indent=1)


if __name__ == "__main__":
    main()
