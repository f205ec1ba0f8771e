"""Compiling and tuning before the first step what it needs."""

import ctypes
import functools
import json
from typing import Any, Callable, NamedTuple, Optional, Sequence

import torch

from smlora import _native
from smlora._activation import Activation, as_activation
from smlora._arguments import INT32_MAX, INT64_MAX, check_choice, check_flag, check_number, check_whole, described
from smlora._library import DTYPES, PACKED_DTYPES, cuda_engine
from smlora._projection import ROW_ORDERS
from smlora.quantized._weight import ENCODINGS, GLOBAL_SCALES, QuantizedWeight

_LAYOUTS = {name: value for value, name in enumerate(_native.weight_layouts)}
_SKEWS = {name: value for value, name in enumerate(_native.tune_skews)}


class _Stored(NamedTuple):
    """All of a QuantizedWeight that kernels are compiled for, as the library takes it."""

    encoding: int
    scales: int
    block: int
    parts: int
    outer_block: int
    global_scale: int
    arranged: int


def _stored(weight):
    return _Stored(ENCODINGS[weight.encoding], (DTYPES + PACKED_DTYPES).index(weight.scales.dtype), weight.block, weight.parts,
                   weight.outer_block, GLOBAL_SCALES.index(weight.global_scale), int(weight.is_arranged))


def _format(weights):
    """The numbers of a QuantizedWeight, or that of an encoding in its usual form."""
    if isinstance(weights, _Stored):
        return list(weights)
    if isinstance(weights, QuantizedWeight):
        return list(_stored(weights))
    if isinstance(weights, str) and weights in ENCODINGS:
        return [ENCODINGS[weights]]
    raise ValueError(f"weights: expected one of {', '.join(ENCODINGS)} or a QuantizedWeight, got {weights!r:.80}")


class _ProblemFields(NamedTuple):
    E: int
    K: int
    N: int
    R: int
    top_k: int
    dtype: torch.dtype = torch.bfloat16
    adapter_dtype: Optional[torch.dtype] = None
    gate_dtype: Optional[torch.dtype] = None
    index_dtype: torch.dtype = torch.int32
    weight_layout: str = "ekn"
    x_rows: str = "token"
    y_rows: str = "scattered"
    bias: bool = False
    gates: bool = False
    weights: str | QuantizedWeight = "plain"


class Problem(_ProblemFields):
    """A projection: E experts, K inputs, N outputs, rank R (0: no adapter), top_k experts of a token.

    adapter_dtype and gate_dtype: those of `dtype` unless given. weight_layout: "ekn" if N is contiguous in the weight
    [E, K, N], "enk" if K is (what Hugging Face stores). x_rows, y_rows: as `moe_lora_linear` takes them.
    weights: how the weight is stored: "plain", an encoding such as "nf4" in its usual form, or a QuantizedWeight to take the
    form from. Give a QuantizedWeight if the block or the type of the scales is another: gpt-oss's are uint8, those of "mxfp4"
    float8_e8m0fnu. Raises ValueError that names the field."""

    __slots__ = ()

    @functools.wraps(_ProblemFields.__new__)
    def __new__(cls, *fields: Any, **named: Any) -> "Problem":
        problem = super().__new__(cls, *fields, **named)
        problem.numbers()
        return problem

    def numbers(self) -> list[Any]:
        """As the library takes it. Checked here too, as `_replace` makes a problem of any fields."""
        for name, known in (("weight_layout", _LAYOUTS), ("x_rows", ROW_ORDERS), ("y_rows", ROW_ORDERS)):
            check_choice(name, getattr(self, name), known)
        sizes = [check_whole(name, getattr(self, name), 0 if name == "R" else 1, INT64_MAX)
                 for name in ("E", "K", "N", "R", "top_k")]
        types = dict(dtype=self.dtype, adapter_dtype=self.adapter_dtype or self.dtype,
                     gate_dtype=self.gate_dtype or self.dtype, index_dtype=self.index_dtype)
        for name, dtype in types.items():
            if dtype not in DTYPES:
                raise ValueError(f"{name}: expected one of {', '.join(map(str, DTYPES))}, got {dtype}")
        self._check_extents()
        numbers = [
            *sizes, *map(DTYPES.index, types.values()), _LAYOUTS[self.weight_layout], ROW_ORDERS[self.x_rows],
            ROW_ORDERS[self.y_rows], check_flag("bias", self.bias), check_flag("gates", self.gates), _format(self.weights)
        ]
        _native.check_problem(numbers)
        return numbers

    def _check_extents(self):
        weight = self.weights
        if not isinstance(weight, QuantizedWeight):
            return
        names = ("E", "N", "K") if self.weight_layout == "enk" else ("E", "K", "N")
        expected = [getattr(self, name) for name in names]
        if expected != [weight.E, weight.rows, weight.columns]:
            raise ValueError(
                f"weights: expected [{', '.join(names)}] = {expected}, as the weight_layout is {self.weight_layout}, "
                f"got {list(weight.shape)}"
            )


def _columns_are_inputs(weight):
    """Of a weight [E, K, N]: whether K is contiguous. A quantised one is decoded as it is stored."""
    if isinstance(weight, QuantizedWeight):
        return weight.transposed
    return weight.stride(2) != 1 and weight.stride(1) == 1


class WeightForm(NamedTuple):
    """A weight [E, K, N] as kernels know it: what `mlp_problems` needs of one that is nowhere in memory."""

    shape: tuple
    layout: str
    weights: object = "plain"


def form_of(weight):
    """Of a tensor or a QuantizedWeight."""
    layout = "enk" if _columns_are_inputs(weight) else "ekn"
    return WeightForm(tuple(weight.shape), layout, _stored(weight) if isinstance(weight, QuantizedWeight) else "plain")


def mlp_problems(gate_up, down, top_k, dtype, *, ranks, adapter_dtypes, gate_dtype, biases=(False, False), summed=True):
    """The two projections of an MLP, weights as `WeightForm`. summed: whether the rows of a token are summed by the second one,
    as `moe_lora_mlp` does. Unchecked: the operation names what is wrong in its caller's words."""

    def problem(weight, R, adapter_dtype, bias, **orders):
        return Problem._make(_ProblemFields(
            *weight.shape, R, top_k, dtype, adapter_dtype, gate_dtype, torch.int32, weight.layout, bias=bias,
            weights=weight.weights, **orders
        ))

    sums = dict(y_rows="token", gates=gate_dtype is not None) if summed else dict(y_rows="scattered")
    return [
        problem(gate_up, ranks[0], adapter_dtypes[0], biases[0], x_rows="token", y_rows="grouped"),
        problem(down, ranks[1], adapter_dtypes[1], biases[1], x_rows="grouped", **sums),
    ]


def _job(problems, tokens):
    """(the numbers of each problem, the numbers of tokens), as the library takes them."""
    if isinstance(problems, Problem) or not hasattr(problems, "__iter__"):
        raise ValueError(f"problems: expected a list of smlora.Problem, got {described(problems)}")
    problems = list(problems)
    for problem in problems:
        if not isinstance(problem, Problem):
            raise ValueError(f"problems: expected a list of smlora.Problem, got {described(problem)} in it")
    return [problem.numbers() for problem in problems], check_tokens(tokens)


def check_tokens(tokens):
    if not hasattr(tokens, "__iter__"):
        raise ValueError(f"tokens: expected a list of numbers, got {described(tokens)}")
    return [check_whole("tokens", T, 1, INT64_MAX) for T in tokens]


def _seconds(seconds):
    number = check_number("seconds", seconds)
    # The library takes it in fp32, where the least number is 2^-149.
    if not ctypes.c_float(number).value > 0:
        raise ValueError(f"seconds: expected a number above 0, got {seconds}")
    return number


def _activation_numbers(problems, activation):
    """Of the activation before each problem that takes its rows grouped, as the library takes it."""
    if activation is None:
        return []
    kind, interleaved, *_ = as_activation(activation).numbers()
    rows = {(problem.K, DTYPES.index(problem.dtype)) for problem in problems if problem.x_rows == "grouped"}
    if not rows:
        raise ValueError('activation: expected it with a problem whose x_rows are "grouped", which the activation makes')
    return [[kind, interleaved, *row] for row in sorted(rows)]


def compile_steps(problems, tokens, activation=None, archs=(), *, check_only=False):
    """`prewarm` of problems; with check_only nothing is compiled, and what is found says what the cache has."""
    numbers, tokens = _job(problems, tokens)
    activations = _activation_numbers(problems, activation)
    return json.loads(_native.prewarm(cuda_engine(), numbers, tokens, activations, list(archs), int(check_only)))


def prewarm(problems: Sequence[Problem] | torch.nn.Module, tokens: Sequence[int] = (), *,
            activation: Optional[str | Activation] = None, archs: Sequence[str] = ()) -> dict[str, Any]:
    """Compiles the kernels that training steps of these problems need into the cache, many at once. Otherwise the first step
    of a process compiles them one after the other. Needs NVRTC, but no GPU: without one it compiles for sm_90a. Kernels that
    are in the cache are not compiled again.

    problems: a list of `Problem`, or a model of Transformers whose experts smlora computes, with or without PEFT's adapters.
    A model says everything itself: the types of weights, adapters and gates, how weights are stored, activations, and, if it
    is spread over ranks, the part of this rank. Its adapters are those that are active. It may lie on the meta device, and
    under torch.autocast its steps are those under autocast.
    tokens: the numbers of tokens of a step that the job will use, on one rank; a few typical numbers if it is empty.
    activation: a name or an `Activation`, of a list of problems: what makes the rows of those with x_rows "grouped".
    archs: names of architectures, such as "sm_90a"; that of the GPU, else sm_90a, if it is empty.
    Returns a dict: how many kernels there are, how many were compiled and found, and the seconds that it took. Raises
    ValueError that names the argument, and `Error` if NVRTC cannot be opened or a kernel does not compile."""
    if isinstance(archs, str) or not all(isinstance(arch, str) for arch in archs):
        raise ValueError(f'archs: expected a list of names such as "sm_90a", got {described(archs)}')
    if not isinstance(problems, torch.nn.Module):
        return compile_steps(problems, tokens, activation, archs)
    if activation is not None:
        raise ValueError(f"activation: expected none with a model, which has its own, got {described(activation)}")
    from smlora.transformers._steps import steps_of

    tokens = check_tokens(tokens)
    return merged([compile_steps(step.problems, step.rows(tokens), step.activation, archs) for step in steps_of(problems)])


def merged(reports):
    """One report of several."""
    total = reports[0]
    for report in reports[1:]:
        total = {name: total[name] if name == "schema" else total[name] + value for name, value in report.items()}
    return total


def tune(problems: Sequence[Problem], tokens: Sequence[int] = (), *, seconds: float = 60, memory_bytes: Optional[int] = None,
         candidates: Optional[int] = None, rounds: int = 9, skew: str = "uniform", again: bool = False,
         progress: Optional[Callable[[dict[str, Any]], Any]] = None) -> dict[str, Any]:
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
    problems, tokens = _job(problems, tokens)
    options = (
        _seconds(seconds),
        0 if memory_bytes is None else check_whole("memory_bytes", memory_bytes, 1, INT64_MAX),
        0 if candidates is None else check_whole("candidates", candidates, 1, INT32_MAX),
        check_whole("rounds", rounds, 1, INT32_MAX),
        _SKEWS[check_choice("skew", skew, _SKEWS)],
        check_flag("again", again),
    )
    if progress is not None and not callable(progress):
        raise ValueError(f"progress: expected a function, got {described(progress)}")
    report = {"works": [], "seconds": 0.0, "stopped": False}
    for index, problem in enumerate(problems):
        one = json.loads(_native.tune(cuda_engine(), problem, tokens, *options, progress))
        report["works"] += [{"problem": index, **work} for work in one["works"]]
        report["seconds"] += one["seconds"]
        report["stopped"] = one["stopped"]
        if one["stopped"]:
            break
    return report
