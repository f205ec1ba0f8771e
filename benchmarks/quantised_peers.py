#!/usr/bin/env python3
"""Times products of quantised experts with adapters: smlora, in bf16 and on each encoding, beside axolotl's kernels and beside
decoding everything for torch._grouped_mm, as Unsloth does. Forward, dX, and a whole step through autograd.

    python benchmarks/quantised_peers.py                                     smlora and grouped_mm, the shapes of peers.py
    python benchmarks/quantised_peers.py --shape qwen3_gate_up --tokens 512,2048,4096,16384 --axolotl ~/axolotl
    python benchmarks/quantised_peers.py --weights mxfp4,nf4 --who smlora --unarranged --json quantised_peers.json

One table: beside each time in ms its ratio to smlora in bf16 of the same run and operation, less than 1 is faster. All take the
same bytes. "error" is the largest difference of any result (y, dX, dA, dB) from a reference in fp32 on the decoded weights, in
the norm; what is off by more than --tolerance is reported and not timed. smlora's scales are arranged; --unarranged adds them
as they are.

Needs a GPU and smlora's package. axolotl's paths for mxfp4 and nvfp4 need torchao, too, and one contestant bitsandbytes. What
cannot be imported is left out. What is not recorded is tuned on first use, up to 10 s a shape; SMLORA_TUNING=record-only takes
the cost model's choice instead."""

import argparse
import dataclasses
import json
import sys
import traceback

import torch

import smlora
from quantised_peer_kernels import ENCODINGS, contestants
from shapes import chosen_shapes, operand_sets
from timing import PROTOCOLS

OPERATIONS = ("forward", "dx", "step")
WHO = ("smlora", "axolotl", "grouped_mm")
BITS = 4  # of a value, at the least


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", default=[],
                        help="E,K,N,R,k,T or a name such as qwen3_gate_up; may be given again [all that have names]")
    parser.add_argument("--tokens", help="instead of the shapes', separated by commas")
    parser.add_argument("--rank", type=int, help="instead of the shapes' 16")
    parser.add_argument("--weights", default=",".join(ENCODINGS), help="[%(default)s]")
    parser.add_argument("--who", default=",".join(WHO), help="[%(default)s]")
    parser.add_argument("--op", default=",".join(OPERATIONS), help="[%(default)s]")
    parser.add_argument("--unarranged", action="store_true", help="smlora also on scales as they are")
    parser.add_argument("--axolotl", metavar="FOLDER", help="a checkout of axolotl to take its kernels from")
    parser.add_argument("--skew", choices=("uniform", "zipf", "one"), default="uniform", help="[%(default)s]")
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="burst", help="[%(default)s]")
    parser.add_argument("--tolerance", type=float, default=0.01, help="of errors [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write every time and error there, after each shape")
    arguments = parser.parse_args()
    for name, known in (("weights", ENCODINGS), ("who", WHO), ("op", OPERATIONS)):
        given = getattr(arguments, name).split(",")
        if not set(given) <= set(known):
            parser.error(f"--{name}: expected some of {','.join(known)}, got {','.join(given)}")
        setattr(arguments, name, given)
    return arguments


def shapes_of(arguments):
    shapes = chosen_shapes(arguments.shape, arguments.rank)
    if arguments.tokens is None:
        return shapes
    return [dataclasses.replace(shape, T=int(tokens)) for shape in shapes for tokens in arguments.tokens.split(",")]


def quantise(i, encoding):
    """W in `encoding`, stored [E, N, K]; None for bf16."""
    return None if encoding == "bf16" else smlora.quantize(i.W.transpose(1, 2), encoding).transpose(1, 2)


def reference(i):
    """{"y", "dX", "dA", "dB"} in fp32, with the decoded weights in bf16."""
    W = i.W if i.weight is None else i.weight.dequantize(i.x.dtype)
    found = {
        "y": torch.zeros(i.shape.M, i.shape.N, device=i.x.device), "dX": torch.zeros(i.x.shape, device=i.x.device),
        "dA": torch.zeros(i.A.shape, device=i.x.device), "dB": torch.zeros(i.B.shape, device=i.x.device),
    }
    begin = 0
    for e, end in enumerate(i.offsets.tolist()):
        flat = i.scattered[begin:end]
        begin = end
        tokens = flat // i.shape.k
        x, dy, w, A, B = (t.float() for t in (i.x[tokens], i.dy[flat], W[e], i.A[e], i.B[e]))
        xa, yb = i.scaling * (x @ A.T), i.scaling * (dy @ B)
        found["y"][flat] = x @ w + xa @ B.T
        found["dX"].index_add_(0, tokens, dy @ w.T + yb @ A)
        found["dA"][e], found["dB"][e] = yb.T @ x, dy.T @ xa
    return found


def results_of(operation, outputs, shape):
    """What a call of `operation` gave, by the names of `reference`."""
    if operation != "step":
        return {{"forward": "y", "dx": "dX"}[operation]: outputs[0] if isinstance(outputs, tuple) else outputs}
    dX, dA, dB = outputs
    if dA.dim() == 2:  # [E R, K] and [N, E R]
        dA, dB = dA.view(shape.E, shape.R, shape.K), dB.view(shape.N, shape.E, shape.R).permute(1, 0, 2)
    return {"dX": dX, "dA": dA, "dB": dB}


def errors_of(contestant, operations, i, expected):
    """{"forward y": relative difference in the norm, .., "step dB": ..}"""
    errors = {}
    for operation in operations:
        for name, value in results_of(operation, getattr(contestant, operation)(i)(), i.shape).items():
            errors[f"{operation} {name}"] = ((value.float() - expected[name]).norm() / expected[name].norm()).item()
    return errors


def largest(errors):
    """NaN if any is."""
    return torch.tensor(list(errors.values())).max().item()


def measure(contestant, operations, sets, protocol):
    """Milliseconds by operation."""
    times = {}
    for operation in operations:
        calls = [getattr(contestant, operation)(i) for i in sets]
        for call in calls:
            call()
        times[operation] = PROTOCOLS[protocol](calls)
        del calls
        torch.cuda.empty_cache()
    return times


def row_of(contestant, sets, expected, arguments):
    """{"errors", "error", "ms", "reason"}: the largest of the errors, and why there are no times."""
    row = {"errors": {}, "error": None, "ms": {}, "reason": ""}
    try:
        row["errors"] = errors_of(contestant, arguments.op, sets[0], expected)
        row["error"] = largest(row["errors"])
        if row["error"] <= arguments.tolerance:
            row["ms"] = measure(contestant, arguments.op, sets, arguments.protocol)
        else:
            row["reason"] = "wrong: " + ", ".join(f"{name} {error:.3g}" for name, error in row["errors"].items())
    except Exception as error:  # a contestant that fails on a shape must not end the run
        traceback.print_exc(limit=3)
        row["reason"] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
    torch.cuda.empty_cache()
    return row


def compare(shape, found, arguments):
    """Yields the row of each contestant, smlora in bf16 first."""
    torch.compiler.reset()  # of the last shape's decoding; else it stops compiling after a few
    sets = operand_sets(shape, arguments.skew, arguments.seed, BITS)
    for i in sets:
        i.W = i.W.transpose(1, 2).contiguous().transpose(1, 2)  # stored as in a checkpoint
    for encoding in dict.fromkeys(contestant.encoding for contestant in found):
        for i in sets:
            i.weight = quantise(i, encoding)
        expected = reference(sets[0])
        for contestant in found:
            if contestant.encoding == encoding:
                yield {"shape": shape.name, "tokens": shape.T, "rows_per_expert": shape.M / shape.E,
                       "contestant": contestant.name, **row_of(contestant, sets, expected, arguments)}


def print_header(operations):
    columns = "".join(f" {name:>8} {'ratio':>6}" for name in operations)
    print(f"{'shape':20} {'tokens':>6} {'rows':>6} {'contestant':28}{columns} {'error':>8}", flush=True)


def number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def print_row(row, operations):
    cells = "".join(f" {number(row['ms'].get(name), 4):>8} {number(row['ratio'].get(name), 2):>6}" for name in operations)
    print(f"{row['shape']:20} {row['tokens']:6} {row['rows_per_expert']:6.0f} {row['contestant']:28}{cells} "
          f"{number(row['error'], 5):>8}  {row['reason']}".rstrip(), flush=True)


def main():
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("quantised_peers.py needs a GPU")
    found = contestants(arguments.who, arguments.weights, arguments.unarranged, arguments.axolotl)
    environment = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "protocol": arguments.protocol,
        "skew": arguments.skew, "notes": {contestant.name: contestant.note for contestant in found},
    }
    print(f"{environment['gpu']}, torch {environment['torch']}, {arguments.protocol}", file=sys.stderr)
    results = []
    print_header(arguments.op)
    for shape in shapes_of(arguments):
        plain = {}
        for row in compare(shape, found, arguments):
            plain = row["ms"] if row["contestant"] == "smlora:bf16" else plain
            row["ratio"] = {operation: ms / plain[operation] for operation, ms in row["ms"].items() if operation in plain}
            results.append(row)
            print_row(row, arguments.op)
        if arguments.json:
            with open(arguments.json, "w") as file:
                json.dump({"format": 1, "environment": environment, "results": results}, file, indent=1)
    failed = [row for row in results if row["reason"] and row["contestant"].startswith("smlora")]
    if failed:
        sys.exit(f"smlora failed on {len(failed)} of {len(results)} rows; see above")


if __name__ == "__main__":
    main()
