#!/usr/bin/env python3
"""Times how cost grows with tokens, rank, experts and uneven routing, against the floor and the peers: one property of a shape
is varied at a time.

    python benchmarks/growth.py                                       every sweep around 128,2048,1536,16,8,16384
    python benchmarks/growth.py --sweep rank --op forward,lora_grad --shape 64,2048,1024,16,8,8192
    python benchmarks/growth.py --peer smlora,torch._grouped_mm --json growth.json --plot growth.png

The last lines list the points that take more than 1.5 times their floor. What is not recorded is tuned on first use, up to
10 s a point; SMLORA_TUNING=record-only takes the cost model's choice instead. Needs a GPU and what --peer names,
as peers.py does."""

import argparse
import dataclasses
import json
import sys

import torch

import axolotl_kernels
from peer_kernels import OPERATIONS, found, peer_names
from peers import failures, measure
from shapes import Shape
from timing import PROTOCOLS, ceilings

SWEEPS = {
    "tokens": [1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536],
    "rank": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    "experts": [8, 16, 32, 64, 128, 256, 512, 1024],
    "routing": ["uniform", "zipf", "one"],
}
FIELDS = {"tokens": "T", "rank": "R", "experts": "E"}
FAR = 1.5
TICKS = [1, 1.5, 2, 3, 5, 10]  # of the curves; what is above HIGHEST is cut off
HIGHEST = 15


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", help="E,K,N,R,k,T around which one property varies [%(default)s]",
                        default="128,2048,1536,16,8,16384")
    parser.add_argument("--sweep", help="what varies, separated by commas [%(default)s]", default=",".join(SWEEPS))
    parser.add_argument("--op", help="operations, separated by commas; lora_grad is dA + dB [%(default)s]",
                        default="base,forward,dx,lora_grad")
    parser.add_argument("--peer", help=f"of {peer_names()} [%(default)s]", default="smlora")
    parser.add_argument("--axolotl", metavar="FOLDER", help="a checkout of axolotl to take its kernels from")
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="burst", help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write every time and floor there")
    parser.add_argument("--plot", metavar="FILE", help="draw times the floor there; needs matplotlib")
    arguments = parser.parse_args()
    for option, known in (("sweep", SWEEPS), ("op", OPERATIONS)):
        given = getattr(arguments, option).split(",")
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"--{option}: expected some of {','.join(known)}, got {','.join(unknown)}")
        setattr(arguments, option, given)
    return arguments


def points(shape, sweeps):
    """(sweep, value, shape, routing) of every point."""
    for sweep in sweeps:
        for value in SWEEPS[sweep]:
            if sweep == "routing":
                yield sweep, value, shape, value
                continue
            varied = dataclasses.replace(shape, name=f"{sweep} {value}", **{FIELDS[sweep]: value})
            if varied.k <= varied.E:
                yield sweep, value, varied, "uniform"


def time_points(peers, arguments, tflops, gbs):
    results = []
    for sweep, value, shape, routing in points(Shape.parse(arguments.shape), arguments.sweep):
        arguments.skew = routing
        times, experts = measure(peers, shape, arguments.op, arguments)
        for operation, ms in times.items():
            floor = shape.floor_ms(operation, experts, tflops, gbs)
            results.append({"sweep": sweep, "value": value, "operation": operation, "ms": ms, "floor_ms": floor})
        print(f"{sweep} {value} done", file=sys.stderr)
    return results


def print_table(results, peers, operations):
    for sweep in dict.fromkeys(row["sweep"] for row in results):
        for peer in peers:
            print(f"\n{peer.name}: ms (times the floor)")
            print(f"{sweep:>10}" + "".join(f" {operation:>20}" for operation in operations))
            for value in dict.fromkeys(row["value"] for row in results if row["sweep"] == sweep):
                cells = ""
                for operation in operations:
                    ms, floor = _of(results, sweep, value, operation, peer.name)
                    cells += f" {'' if ms is None else f'{ms:.4f} ({ms / floor:.2f})':>20}"
                print(f"{value:>10}" + cells)


def _of(results, sweep, value, operation, peer):
    for row in results:
        if (row["sweep"], row["value"], row["operation"]) == (sweep, value, operation):
            return row["ms"].get(peer), row["floor_ms"]
    return None, None


def print_far(results, peer):
    far = [row for row in results if row["ms"].get(peer, 0) > FAR * row["floor_ms"]]
    print(f"\n{len(far)} of {len(results)} points of {peer} take more than {FAR} times their floor")
    for row in sorted(far, key=lambda row: row["floor_ms"] / row["ms"][peer]):
        print(f"  {row['sweep']} {row['value']}: {row['operation']} {row['ms'][peer] / row['floor_ms']:.2f}")


def draw(results, peers, operations, file):
    """Times the floor, a column of axes for each sweep and a row for each operation."""
    import matplotlib.pyplot as plt

    sweeps = [sweep for sweep in dict.fromkeys(row["sweep"] for row in results) if sweep in FIELDS]
    figure, axes = plt.subplots(len(operations), len(sweeps), squeeze=False, sharex="col", sharey="row",
                                figsize=(3.4 * len(sweeps), 1.7 * len(operations)))
    for row, operation in zip(axes, operations):
        for axis, sweep in zip(row, sweeps):
            own = [r for r in results if r["sweep"] == sweep and r["operation"] == operation]
            axis.axhline(1, color="black", linestyle="--", linewidth=0.8, label="floor")
            for peer in peers:
                timed = [r for r in own if peer.name in r["ms"]]
                axis.plot([r["value"] for r in timed], [r["ms"][peer.name] / r["floor_ms"] for r in timed],
                          marker=".", label=peer.name)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.grid(alpha=0.3)
        row[0].set(ylabel=operation, ylim=(0.8, HIGHEST), yticks=TICKS, yticklabels=TICKS)
        row[0].yaxis.minorticks_off()
    for axis, sweep in zip(axes[-1], sweeps):
        axis.set_xlabel(sweep)
    axes[0, 0].legend(fontsize=7)
    figure.suptitle("times the floor", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def main():
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("growth.py needs a GPU")
    if arguments.axolotl:
        axolotl_kernels.load(arguments.axolotl)
    peers = found(arguments.peer)
    tflops, gbs = ceilings(PROTOCOLS[arguments.protocol])
    environment = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "protocol": arguments.protocol,
                   "shape": arguments.shape, "tflops": tflops, "gbs": gbs}
    print(f"{environment['gpu']}, {arguments.protocol}: {tflops:.0f} TFLOP/s, {gbs:.0f} GB/s", file=sys.stderr)
    results = time_points(peers, arguments, tflops, gbs)
    print_table(results, peers, arguments.op)
    print_far(results, peers[0].name)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"format": 1, "environment": environment, "results": results}, file, indent=1)
    if arguments.plot:
        draw(results, peers, arguments.op, arguments.plot)
    if failures(results, peers[0]):
        sys.exit(f"{peers[0].name} failed on {len(failures(results, peers[0]))} of {len(results)} points; see above")


if __name__ == "__main__":
    main()
