#!/usr/bin/env python3
"""Times smlora beside its peers in one run: forward, dX, the adapter's gradients and a whole step, against the floor.

    python benchmarks/peers.py                                  the eight shapes of docs/performance.md
    python benchmarks/peers.py --shape E,K,N,R,k,T --op forward,step
    python benchmarks/peers.py --skew zipf --protocol sustained --json peers.json --plot peers.png
    python benchmarks/peers.py --axolotl ~/axolotl --peer smlora,axolotl

Needs a GPU and what is to be compared: smlora's Python package, axolotl, deep_gemm. What cannot be imported is left out. Of
axolotl a checkout will do, as only its kernels are loaded. What is not recorded is tuned on first use, up to 10 s a shape;
SMLORA_TUNING=record-only takes the cost model's choice instead."""

import argparse
import json
import math
import sys
import traceback

import torch

import axolotl_kernels
from peer_kernels import OPERATIONS, found, peer_names
from shapes import chosen_shapes, operand_sets
from timing import PROTOCOLS, ceilings


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", default=[],
                        help="E,K,N,R,k,T or a name such as qwen3_gate_up; may be given again [all that have names]")
    parser.add_argument("--op", default=",".join(OPERATIONS),
                        help="operations, separated by commas; lora_grad is dA + dB [%(default)s]")
    parser.add_argument("--peer", default="", help=f"of {peer_names()} [all that can be imported]")
    parser.add_argument("--axolotl", metavar="FOLDER", help="a checkout of axolotl to take its kernels from")
    parser.add_argument("--rank", type=int, help="instead of the shapes' 16")
    parser.add_argument("--skew", choices=("uniform", "zipf", "one"), default="uniform", help="[%(default)s]")
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="burst", help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write every time and floor there")
    parser.add_argument("--plot", metavar="FILE", help="draw the floor over the times there; needs matplotlib")
    return parser.parse_args()


def measure(peers, shape, operations, arguments):
    """Milliseconds by operation and peer, and how many experts had rows."""
    sets = operand_sets(shape, arguments.skew, arguments.seed)
    times = {operation: {} for operation in operations}
    for operation in operations:
        for peer in peers:
            prepare = getattr(peer, operation, None)
            if prepare is None:
                continue
            try:
                calls = [prepare(inputs) for inputs in sets]
                for call in calls:
                    call()
                times[operation][peer.name] = PROTOCOLS[arguments.protocol](calls)
            except Exception:  # a peer that fails on a shape must not end the run
                print(f"{peer.name}: {operation} of {shape.name} failed", file=sys.stderr)
                traceback.print_exc(limit=3)
            calls = None
            torch.cuda.empty_cache()
    return times, sets[0].active_experts()


def failures(results, peer):
    """The rows that `peer` has no time for, of operations that it has."""
    return [row for row in results if hasattr(peer, row["operation"]) and peer.name not in row["ms"]]


def cell(row, name):
    ms = row["ms"].get(name)
    text = "" if ms is None else f"{ms:.4f}  {row['floor_ms'] / ms:.2f} of floor"
    return f" {text:>28}"


def print_table(results, peers):
    names = [peer.name for peer in peers]
    print(f"{'shape':20} {'operation':10} {'floor':>8}" + "".join(f" {name:>28}" for name in names))
    for row in results:
        cells = "".join(cell(row, name) for name in names)
        print(f"{row['shape']:20} {row['operation']:10} {row['floor_ms']:8.4f}{cells}")
    for operation in dict.fromkeys(row["operation"] for row in results):
        for name in names[1:]:
            ratios = [
                row["ms"][name] / row["ms"][names[0]]
                for row in results
                if row["operation"] == operation and name in row["ms"] and names[0] in row["ms"]
            ]
            if ratios:
                mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
                print(f"{operation}: {names[0]} is {mean:.2f}x as fast as {name} in the geometric mean, "
                      f"{min(ratios):.2f}x to {max(ratios):.2f}x")


def draw(results, peers, file):
    import matplotlib.pyplot as plt

    operations = list(dict.fromkeys(row["operation"] for row in results if row["ms"]))
    figure, axes = plt.subplots(len(operations), 1, figsize=(12, 3 * len(operations)), squeeze=False)
    for axis, operation in zip(axes[:, 0], operations):
        rows = [row for row in results if row["operation"] == operation]
        timed = [n for n, peer in enumerate(peers) if any(peer.name in row["ms"] for row in rows)]
        width = 0.8 / len(timed)
        for place, n in enumerate(timed):
            name = peers[n].name
            shares = [row["floor_ms"] / row["ms"][name] if name in row["ms"] else 0 for row in rows]
            lefts = [r + (place + 0.5) * width for r in range(len(rows))]
            axis.bar(lefts, shares, width, color=f"C{n}", label=name)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks([r + 0.4 for r in range(len(rows))], [row["shape"] for row in rows], fontsize=7)
        axis.set_ylabel(f"{operation}: floor / time")
    labelled = {}
    for axis in axes[:, 0]:
        labelled.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels())})
    figure.legend(labelled.values(), labelled.keys(), fontsize=8, ncols=len(labelled), loc="upper center")
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(file, dpi=120)


def main():
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("peers.py needs a GPU")
    operations = arguments.op.split(",")
    unknown = [operation for operation in operations if operation not in OPERATIONS]
    if unknown:
        sys.exit(f"--op: expected some of {','.join(OPERATIONS)}, got {','.join(unknown)}")
    if arguments.axolotl:
        axolotl_kernels.load(arguments.axolotl)
    peers = found(arguments.peer)
    tflops, gbs = ceilings(PROTOCOLS[arguments.protocol])
    environment = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "protocol": arguments.protocol,
        "skew": arguments.skew, "tflops": tflops, "gbs": gbs, "notes": {peer.name: peer.note for peer in peers},
    }
    print(f"{environment['gpu']}, {arguments.protocol}: {tflops:.0f} TFLOP/s, {gbs:.0f} GB/s", file=sys.stderr)
    results = []
    for shape in chosen_shapes(arguments.shape, arguments.rank):
        times, experts = measure(peers, shape, operations, arguments)
        for operation, ms in times.items():
            results.append({"shape": shape.name, "operation": operation, "ms": ms,
                            "floor_ms": shape.floor_ms(operation, experts, tflops, gbs)})
            print(f"{shape.name} {operation} done", file=sys.stderr)
    print_table(results, peers)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"format": 1, "environment": environment, "results": results}, file, indent=1)
    if arguments.plot:
        draw(results, peers, arguments.plot)
    # The first is what the others are compared with.
    if failures(results, peers[0]):
        sys.exit(f"{peers[0].name} failed on {len(failures(results, peers[0]))} of {len(results)} rows; see above")


if __name__ == "__main__":
    main()
