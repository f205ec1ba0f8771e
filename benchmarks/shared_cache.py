#!/usr/bin/env python3
"""Starts two processes at once on one empty cache, each on a GPU of its own where there are two, and counts what each compiles,
measures and chooses for the projections of a layer of Qwen3-30B-A3B; then what is left of a cache whose processes are killed.

    python benchmarks/shared_cache.py --json shared_cache.json
    python benchmarks/shared_cache.py --small --dtype fp32

Fails if a kernel was compiled twice, a piece of work measured twice, or the processes chose differently. Needs smlora's package
and smlora-tune (--tool, SMLORA_TUNE or in the PATH). Without a GPU it compiles for sm_90a and measures nothing."""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import torch

import smlora

PROCESSES = 2
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of a step [%(default)s]")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters, which are fp32 [%(default)s]")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bf16", help="[%(default)s]")
    parser.add_argument("--small", action="store_true", help="a tiny layer, to try the benchmark")
    parser.add_argument("--seconds", type=float, default=60, help="of tuning, for each projection [%(default)s]")
    parser.add_argument("--candidates", type=int, help="that tuning measures for each kernel [the library's number]")
    parser.add_argument("--tool", metavar="FILE", default=os.environ.get("SMLORA_TUNE", "smlora-tune"), help="[%(default)s]")
    parser.add_argument("--json", metavar="FILE", help="write what was counted there")
    parser.add_argument("--task", choices=tuple(TASKS), help=argparse.SUPPRESS)  # of a process that this program started
    arguments = parser.parse_args()
    if shutil.which(arguments.tool) is None:
        parser.error(f"--tool: expected the path of smlora-tune, got {arguments.tool}, which is not there")
    return arguments


# ---- what a process does ------------------------------------------------------------------------------------------------


def sizes(arguments):
    """(experts, hidden size, intermediate size, top_k)"""
    return (8, 64, 32, 2) if arguments.small else (128, 2048, 768, 8)


def problems(arguments):
    """gate_up and down as Hugging Face stores them, with PEFT's adapters."""
    E, hidden, intermediate, top_k = sizes(arguments)
    dtype = DTYPES[arguments.dtype]
    both = dict(E=E, R=arguments.rank, top_k=top_k, dtype=dtype, adapter_dtype=torch.float32, gate_dtype=dtype,
                weight_layout="enk")
    return [smlora.Problem(K=hidden, N=2 * intermediate, x_rows="token", y_rows="grouped", **both),
            smlora.Problem(K=intermediate, N=hidden, x_rows="grouped", y_rows="token", gates=True, **both)]


def compile_all(arguments):
    report = smlora.prewarm(problems(arguments), [arguments.tokens], activation="swiglu")
    return {name: report[name] for name in ("kernels", "compiled", "found")}


def tune(arguments):
    report = smlora.tune(problems(arguments), [arguments.tokens], seconds=arguments.seconds, candidates=arguments.candidates)
    return {"works": [{name: work[name] for name in ("problem", "work", "outcome", "choice")} for work in report["works"]]}


def step(arguments):
    """A training step on the same numbers in each process."""
    E, hidden, intermediate, top_k = sizes(arguments)
    dtype, generator = DTYPES[arguments.dtype], torch.Generator(device="cuda").manual_seed(0)

    def normal(*shape, dtype=dtype, scale=0.02):
        return torch.empty(shape, dtype=dtype, device="cuda").normal_(0, scale, generator=generator)

    def projection(K, N):
        R = arguments.rank
        factors = [normal(E, *shape, dtype=torch.float32).requires_grad_() for shape in ((R, K), (N, R))]
        return normal(E, N, K).transpose(1, 2), smlora.Adapter(*factors, 2.0)

    gate_up, gate_up_lora = projection(hidden, 2 * intermediate)
    down, down_lora = projection(intermediate, hidden)
    x, dy = (normal(arguments.tokens, hidden, scale=1.0) for _ in range(2))
    gates, experts = torch.rand(arguments.tokens, E, device="cuda", generator=generator).topk(top_k)
    leaves = [x.requires_grad_(), *gate_up_lora[:2], *down_lora[:2]]
    y = smlora.moe_lora_mlp(x, gate_up, down, smlora.route(experts, E), gates.to(dtype), gate_up_lora=gate_up_lora,
                            down_lora=down_lora)
    digest = hashlib.sha256()
    for result in (y, *torch.autograd.grad(y, leaves, dy)):
        digest.update(result.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return {"sha256": digest.hexdigest()}


TASKS = {"compile": compile_all, "tune": tune, "step": step}


def work_on(task, arguments):
    """When the program that started this process says so."""
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.perf_counter()
    report = TASKS[task](arguments)
    seconds = time.perf_counter() - begin
    print(json.dumps({**report, "compiles": smlora.cache_stats()["compiles"], "seconds": seconds}))


# ---- what the program does ----------------------------------------------------------------------------------------------


def environment_of(process, cache, gpus):
    variables = {"SMLORA_CACHE_DIR": str(cache), "SMLORA_SHIPPED_CACHE": "0", "SMLORA_TUNING": "record-only"}
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        variables["CUDA_VISIBLE_DEVICES"] = visible.split(",")[process % gpus]
    return os.environ | variables


def started(task, cache, gpus):
    """The processes, at work from now on."""
    command = [sys.executable, *sys.argv, "--task", task]
    running = [subprocess.Popen(command, env=environment_of(process, cache, gpus), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True) for process in range(PROCESSES)]
    for process in running:
        if process.stdout.readline() != "ready\n":
            sys.exit(f"{task}: a process ended before it began; see above")
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    return running


def together(task, cache, gpus):
    """What each process reports."""
    running = started(task, cache, gpus)
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"{task}: a process failed; see above")
    return [json.loads(output) for output in outputs]


def killed(cache, gpus, kernels):
    """Two processes compile; once there are so many kernels, one is killed, and the other ended, as a launcher does."""
    running = started("compile", cache, gpus)
    while len(list(cache.glob("v1/kernels/*/*"))) < kernels:
        if any(process.poll() is not None for process in running):
            sys.exit("compile: a process ended before it could be killed")
        time.sleep(0.002)
    running[1].kill()
    running[0].terminate()
    codes = [process.wait() for process in running]
    if codes != [-signal.SIGTERM, -signal.SIGKILL]:
        sys.exit(f"compile: the processes ended before they could be killed, with {codes}")


def tool(arguments, cache, *words):
    command = [arguments.tool, "cache", *words, "--json", "--cache-dir", str(cache)]
    return subprocess.run(command, capture_output=True, text=True)


def kernels_in(arguments, cache):
    return json.loads(tool(arguments, cache, "stats").stdout)["entries"]


class Claims:
    """What has to hold, with what was counted."""

    def __init__(self):
        self.results = []

    def check(self, text, holds):
        self.results.append({"claim": text, "holds": bool(holds)})
        print(f"{'ok    ' if holds else 'FAILED'} {text}", flush=True)


def counted(reports, name):
    return " and ".join(str(report[name]) for report in reports)


def count_compiling(claims, reports, missing):
    kernels = reports[0]["kernels"]
    claims.check(f"{kernels} kernels, {missing} missing: the processes compiled {counted(reports, 'compiled')} and found "
                 f"{counted(reports, 'found')}, each in {max(report['seconds'] for report in reports):.1f} s at most",
                 sum(report["compiled"] for report in reports) == missing
                 and all(report["compiled"] + report["found"] == kernels for report in reports))


def count_tuning(claims, reports):
    outcomes = [collections.Counter(work["outcome"] for work in report["works"]) for report in reports]
    measured = [[work["outcome"] for work in same].count("tuned") for same in zip(*(report["works"] for report in reports))]
    claims.check(f"{len(measured)} pieces of work, each measured by one process: {' and '.join(map(str, map(dict, outcomes)))}",
                 measured and all(count == 1 for count in measured))
    choices = [[work["choice"] for work in report["works"]] for report in reports]
    claims.check("both processes chose the same kernels", choices[0] == choices[1])


def main():
    arguments = parse_arguments()
    if arguments.task:
        return work_on(arguments.task, arguments)
    gpus = len(smlora.system_info()["devices"])
    claims, document = Claims(), {"format": 1, "gpus": smlora.system_info()["devices"], "command": sys.argv}
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder, "together")
        document["compile"] = together("compile", cache, gpus)
        kernels = document["compile"][0]["kernels"]
        count_compiling(claims, document["compile"], kernels)
        if gpus:
            document["tune"] = together("tune", cache, gpus)
            count_tuning(claims, document["tune"])
        if torch.cuda.is_available():
            document["step"] = together("step", cache, gpus)
            claims.check(f"a step after it compiled {counted(document['step'], 'compiles')} kernels, in "
                         f"{counted(document['step'], 'seconds')} s",
                         not any(report["compiles"] for report in document["step"]))
            claims.check("both processes computed the same bits", len({report["sha256"] for report in document["step"]}) == 1)
        cache = pathlib.Path(folder, "killed")
        killed(cache, gpus, max(1, kernels // 3))
        left = kernels_in(arguments, cache)
        claims.check(f"both processes were ended, one by SIGKILL, when {left} of {kernels} kernels were there",
                     0 < left < kernels)
        verified = tool(arguments, cache, "verify")
        claims.check(f"smlora-tune cache verify of what they left: exit code {verified.returncode}", verified.returncode == 0)
        document["after_the_kill"] = together("compile", cache, gpus)
        count_compiling(claims, document["after_the_kill"], kernels - left)
    document["claims"] = claims.results
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(document, file, indent=1)
    if not all(result["holds"] for result in claims.results):
        sys.exit(1)


if __name__ == "__main__":
    main()
