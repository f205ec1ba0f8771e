#!/usr/bin/env python3
"""Times a training step of four layers of Qwen3-30B-A3B with random weights and adapters on all experts, on several ranks:
seconds, tokens a second, memory, and the loss beside that of one process.

    torchrun --nproc-per-node 2 benchmarks/distributed.py --json distributed.json
    torchrun --nproc-per-node 4 benchmarks/distributed.py --mode ep,ep+fsdp2 --experts smlora --check
    torchrun --nproc-per-node 2 benchmarks/distributed.py --device cpu --dtype fp32 --small --tokens 64 --check

Modes: ddp; fsdp2, a unit for each layer; ep, Transformers' expert parallelism over all ranks; ep+fsdp2, over half of them, with
FSDP2 of the experts over pairs: with two ranks that is FSDP2 alone, as Transformers starts it. What of them cannot train with
grouped_mm (Transformers' default, adapters added by PEFT) has its error in the place of figures. If one rank alone fails, all
wait until the process group's timeout.

A time is the slowest rank's. Memory is the peak of the timed steps on the rank that has most. Needs Transformers, PEFT and
smlora's package, and a GPU for each rank to mean anything. Kernels are compiled before the first step. A choice that is not
recorded is tuned in that step; SMLORA_TUNING=record-only takes the cost model's instead."""

import argparse
import dataclasses
import gc
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
import traceback

import peft
import torch
import torch.distributed as dist
import transformers

import smlora.transformers
from distributed_models import MODES, adapted, average, sizes

EXPERTS = ("smlora", "grouped_mm")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default=",".join(MODES), help="modes, separated by commas [%(default)s]")
    parser.add_argument("--experts", default=",".join(EXPERTS), help="what computes experts, separated by commas [%(default)s]")
    parser.add_argument("--tokens", type=int, default=8192, help="of a rank, one sequence [%(default)s]")
    parser.add_argument("--layers", type=int, default=4, help="[%(default)s]")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters [%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of AdamW [%(default)s]")
    parser.add_argument("--warmup", type=int, default=3, help="steps that are not timed [%(default)s]")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed [%(default)s]")
    parser.add_argument("--check", action="store_true", help="train on the tokens of all ranks in one process, too, on rank 0")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the benchmark; give fewer --tokens, too")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bf16", help="of the model; adapters are fp32 [%(default)s]")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="[%(default)s]")
    parser.add_argument("--backend", choices=("nccl", "gloo"), help="[nccl for cuda, gloo for cpu]")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, after each run")
    arguments = parser.parse_args(words)
    for name, known in (("mode", MODES), ("experts", EXPERTS)):
        chosen = getattr(arguments, name).split(",")
        unknown = [word for word in chosen if word not in known]
        if unknown:
            parser.error(f"--{name}: expected some of {','.join(known)}, got {','.join(unknown)}")
        setattr(arguments, name, chosen)
    for name, least in (("tokens", 2), ("layers", 1), ("rank", 1), ("warmup", 0), ("steps", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(arguments, name)}")
    return arguments


@dataclasses.dataclass(frozen=True)
class Job:
    """What all runs have in common."""

    layers: int
    rank: int
    """Of the adapters."""
    small: bool
    dtype: torch.dtype
    device: torch.device
    ids: torch.Tensor
    """[ranks, tokens]: the tokens of each rank."""
    learning_rate: float
    warmup: int
    steps: int

    @property
    def on_gpu(self):
        return self.device.type == "cuda"


def start(arguments):
    """The Job of this rank, with its process group."""
    device = torch.device("cpu")
    if arguments.device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("distributed.py needs a GPU")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    elif torch.cuda.is_available():
        sys.exit("distributed.py --device cpu: expected CUDA_VISIBLE_DEVICES= in the environment, as Transformers takes a GPU "
                 "where it sees one")
    backend = arguments.backend or ("nccl" if device.type == "cuda" else "gloo")
    dist.init_process_group(backend, device_id=device if backend == "nccl" else None)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    smlora.transformers.register()
    shape = dist.get_world_size(), arguments.tokens
    ids = torch.randint(sizes(arguments.small)["vocab_size"], shape, generator=torch.Generator().manual_seed(0))
    return Job(arguments.layers, arguments.rank, arguments.small, DTYPES[arguments.dtype], device, ids.to(device),
               arguments.learning_rate, arguments.warmup, arguments.steps)


def compiled(job, experts, model, tokens):
    """What smlora.prewarm says, or None where there is nothing to compile."""
    if not job.on_gpu or experts != "smlora":
        return None
    report = smlora.prewarm(model, [tokens])
    return {name: report[name] for name in ("kernels", "compiled", "found", "seconds")}


def training_step(job, model, ids, averages):
    """A function that makes one and returns its loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=job.learning_rate)

    def step():
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        if averages:
            average(model)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def timed_on_gpu(step, count):
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    losses = []
    dist.barrier()
    events[0].record()
    for event in events[1:]:
        losses.append(step())
        event.record()
    torch.cuda.synchronize()
    return losses, [begin.elapsed_time(end) / 1e3 for begin, end in zip(events, events[1:])]


def timed_on_cpu(step, count):
    losses, times = [], []
    dist.barrier()
    for _ in range(count):
        begin = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - begin)
    return losses, times


def free():
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def over_ranks(values, device, operation):
    values = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(values, op=operation)
    return values.tolist()


def measure(job, mode, experts):
    """The figures of one mode, the same on every rank."""
    model = mode.adapted(job, experts)
    report = compiled(job, experts, model, job.ids.shape[1])
    model = mode.spread(job, model)
    step = training_step(job, model, job.ids[dist.get_rank()][None], mode.averages)
    losses = [step() for _ in range(job.warmup)]
    free()
    if job.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    later, times = (timed_on_gpu if job.on_gpu else timed_on_cpu)(step, job.steps)
    peak = torch.cuda.max_memory_allocated() / 2**30 if job.on_gpu else 0.0
    losses = over_ranks([float(loss) for loss in losses + later], job.device, dist.ReduceOp.SUM)
    *times, peak = over_ranks([*times, peak], job.device, dist.ReduceOp.MAX)
    return {
        "seconds": {"median": statistics.median(times), "min": min(times)},
        "tokens_per_second": job.ids.numel() / statistics.median(times),
        "peak_gib": peak if job.on_gpu else None,
        "losses": [loss / dist.get_world_size() for loss in losses],
        "prewarm": report,
    }


def losses_of_one_process(job, experts):
    """Of as many steps on the tokens of all ranks. Every rank has them; rank 0 computes them."""
    losses = [None]
    if dist.get_rank() == 0:
        model = adapted(job, experts)
        compiled(job, experts, model, job.ids.numel())
        step = training_step(job, model, job.ids, averages=False)
        losses = [[float(step()) for _ in range(job.warmup + job.steps)]]
    dist.broadcast_object_list(losses, device=job.device)
    return losses[0]


def run(job, name, experts, expected):
    """Figures, or {"error": ..}, of a mode; `expected`: the losses of one process, or None."""
    ranks = dist.get_world_size()
    figures, message = {}, None
    try:
        mode = MODES[name](ranks)
        figures = {"mesh": mode.mesh, **measure(job, mode, experts)}
    except Exception as error:  # what cannot be trained in one way must not end the run
        message = f"{type(error).__name__}: {error}"[:300]
        if experts == "smlora" and dist.get_rank() == 0:
            traceback.print_exc(limit=8)
    free()
    messages = [None] * ranks
    dist.all_gather_object(messages, message)
    failed = [text for text in messages if text is not None]
    if failed:
        return {"error": failed[0], "ranks_that_failed": len(failed)}
    if expected is not None:
        errors = [abs(got - loss) / abs(loss) for got, loss in zip(figures["losses"], expected)]
        figures |= {"losses_of_one_process": expected, "greatest_error_of_losses": max(errors)}
    return figures


def driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def environment(job):
    return {
        "command": shlex.join(sys.argv), "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "gpu": torch.cuda.get_device_name() if job.on_gpu else None, "driver": driver() if job.on_gpu else None,
        "ranks": dist.get_world_size(), "backend": dist.get_backend(), "smlora": smlora.__version__,
        "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
        "cuda": torch.version.cuda, "nccl": ".".join(map(str, torch.cuda.nccl.version())) if job.on_gpu else None,
        "tuning": os.environ.get("SMLORA_TUNING", "first-use"), "dtype": str(job.dtype).removeprefix("torch."),
        "layers": job.layers, "rank": job.rank, "tokens_of_a_rank": job.ids.shape[1],
    }


def line(result):
    head = f"{result['mode']:9} {result['experts']:10}"
    if "error" in result:
        return f"{head} cannot train: {result['error']}"
    seconds = result["seconds"]
    text = (f"{head} {1e3 * seconds['median']:9.2f} ms  min {1e3 * seconds['min']:9.2f} ms  "
            f"{result['tokens_per_second']:9.0f} tokens/s  loss {result['losses'][0]:.5f} .. {result['losses'][-1]:.5f}")
    if result["peak_gib"] is not None:
        text += f"  peak {result['peak_gib']:.2f} GiB"
    if "losses_of_one_process" in result:
        text += f"  one process {result['losses_of_one_process'][-1]:.5f}, error {result['greatest_error_of_losses']:.1e}"
    return f"{text}  ({result['mesh']})"


def main():
    arguments = parse_arguments()
    job = start(arguments)
    first = dist.get_rank() == 0
    document = {"format": 1, "environment": environment(job), "results": []}
    if first:
        print(json.dumps(document["environment"]), flush=True)
    expected = {}
    if arguments.check:
        for experts in arguments.experts:
            expected[experts] = losses_of_one_process(job, experts)
            free()
    for name in arguments.mode:
        for experts in arguments.experts:
            result = {"mode": name, "experts": experts, **run(job, name, experts, expected.get(experts))}
            document["results"].append(result)
            if first:
                print(line(result), flush=True)
            if first and arguments.json:
                with open(arguments.json, "w") as file:
                    json.dump(document, file, indent=1)
    dist.barrier()
    dist.destroy_process_group()
    failed = [result["mode"] for result in document["results"] if "error" in result and result["experts"] == "smlora"]
    if failed:
        sys.exit(f"smlora cannot train with {', '.join(failed)}; see above")


if __name__ == "__main__":
    main()
