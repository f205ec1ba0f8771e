"""Compiling and tuning before the first step what it needs."""

import json
from typing import NamedTuple

import torch

from smlora import _native
from smlora._arguments import described
from smlora._library import DTYPES, cuda_engine
from smlora._projection import ROW_ORDERS

_LAYOUTS = {name: value for value, name in enumerate(_native.weight_layouts)}
_SKEWS = {name: value for value, name in enumerate(_native.tune_skews)}


class Problem(NamedTuple):
    """A projection: E experts, K inputs, N outputs, rank R (0: no adapter), top_k experts of a token.

    adapter_dtype and gate_dtype: those of `dtype` unless given. weight_layout: "ekn" if N is contiguous in the weight
    [E, K, N], "enk" if K is (what Hugging Face stores). x_rows, y_rows: as `moe_lora_linear` takes them."""

    E: int
    K: int
    N: int
    R: int
    top_k: int
    dtype: torch.dtype = torch.bfloat16
    adapter_dtype: torch.dtype = None
    gate_dtype: torch.dtype = None
    index_dtype: torch.dtype = torch.int32
    weight_layout: str = "ekn"
    x_rows: str = "token"
    y_rows: str = "scattered"
    bias: bool = False
    gates: bool = False

    def numbers(self):
        """As the library takes it."""
        for name, known in (("weight_layout", _LAYOUTS), ("x_rows", ROW_ORDERS), ("y_rows", ROW_ORDERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("E", "K", "N", "R", "top_k"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name}: expected a whole number, got {described(getattr(self, name))}")
        types = (self.dtype, self.adapter_dtype or self.dtype, self.gate_dtype or self.dtype, self.index_dtype)
        for dtype in types:
            if dtype not in DTYPES:
                raise ValueError(f"dtype: expected one of {', '.join(map(str, DTYPES))}, got {dtype}")
        return [
            self.E, self.K, self.N, self.R, self.top_k, *map(DTYPES.index, types), _LAYOUTS[self.weight_layout],
            ROW_ORDERS[self.x_rows], ROW_ORDERS[self.y_rows], int(self.bias), int(self.gates)
        ]


def mlp_problems(gate_up, down, top_k, dtype, *, ranks, adapter_dtype, gate_dtype, biases=(False, False)):
    """The two projections of `moe_lora_mlp`, weights and ranks as it takes them."""

    def problem(weight, R, bias, **orders):
        E, K, N = weight.shape
        layout = "enk" if weight.stride(2) != 1 and weight.stride(1) == 1 else "ekn"
        return Problem(E, K, N, R, top_k, dtype, adapter_dtype, gate_dtype, torch.int32, layout, bias=bias, **orders)

    return [
        problem(gate_up, ranks[0], biases[0], x_rows="token", y_rows="grouped"),
        problem(down, ranks[1], biases[1], x_rows="grouped", y_rows="token", gates=gate_dtype is not None),
    ]


def _check_job(problems, tokens):
    for problem in problems:
        if not isinstance(problem, Problem):
            raise ValueError(f"problems: expected a list of smlora.Problem, got {described(problem)} in it")
    if not hasattr(tokens, "__iter__"):
        raise ValueError(f"tokens: expected a list of numbers, got {described(tokens)}")


def prewarm(problems, tokens=()):
    """Compiles the kernels that training steps of these problems need into the cache, many at once. Otherwise the first step
    of a process compiles them one after the other. Needs NVRTC, but no GPU; kernels that are in the cache are not compiled
    again.

    problems: a list of `Problem`. tokens: the numbers of tokens that the job will use; a few typical numbers if it is
    empty.
    Returns a dict: how many kernels there are, how many were compiled and found, and the seconds that it took. Raises ValueError that
    names the argument, and `Error` if NVRTC cannot be opened or a kernel does not compile."""
    _check_job(problems, tokens)
    return json.loads(_native.prewarm(cuda_engine(), [problem.numbers() for problem in problems], list(tokens)))


def tune(problems, tokens=(), *, seconds=60, memory_bytes=None, candidates=None, rounds=9, skew="uniform", again=False,
         progress=None):
    """Measures on the GPU which kernels are the fastest for training steps of these problems, and records it for every
    later process: the first step measures it otherwise, in a shorter time. What is recorded already is not measured
    again, and what was interrupted is resumed. Call it before the first step: a process keeps the kernels that it uses.

    problems: a list of `Problem`. tokens: the numbers of tokens that the job will use, each of which stands for all that
    round to the same power of two; 1024 to 65536 if there are none. seconds: for one problem and number of tokens,
    everything included. memory_bytes: of the GPU's, half of what is free unless given. candidates: that are tried for
    each kernel, 24 unless given; those that a record lacks are measured only if it is. rounds: samples of each. skew: how
    tokens choose their experts, "uniform", "zipf" or "one". again: measure what is recorded, too. progress: called with a
    dict; False from it stops, and so does what it raises.
    Returns a dict: "works", a list with the outcome, choice and time of each kernel and the index of its problem, "seconds", and
    "stopped"."""
    _check_job(problems, tokens)
    if skew not in _SKEWS:
        raise ValueError(f"skew: expected one of {', '.join(_SKEWS)}, got {skew!r}")
    for name, value in (("memory_bytes", memory_bytes), ("candidates", candidates)):
        if value is not None and not (isinstance(value, int) and value > 0):
            raise ValueError(f"{name}: expected a whole number above 0, got {described(value)}")
    report = {"works": [], "seconds": 0.0, "stopped": False}
    for index, problem in enumerate(problems):
        one = json.loads(
            _native.tune(cuda_engine(), problem.numbers(), list(tokens), seconds, memory_bytes or 0, candidates or 0,
                         rounds, _SKEWS[skew], int(again), progress))
        report["works"] += [{"problem": index, **work} for work in one["works"]]
        report["seconds"] += one["seconds"]
        report["stopped"] = one["stopped"]
        if one["stopped"]:
            break
    return report
