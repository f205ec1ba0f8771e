"""What of a model smlora computes, and why not the rest."""

import re
from typing import NamedTuple, Sequence

import torch

from smlora._library import Error
from smlora._prewarm import check_tokens, compile_steps, merged
from smlora.transformers._layers import adapted, experts_of, runs
from smlora.transformers._parallel import is_spread
from smlora.transformers._steps import steps_of_layer
from smlora.transformers._weights import parameters_of, quantized_weight


class Layer(NamedTuple):
    """The experts of one layer."""

    path: str
    experts: str
    """The name of their class."""
    runs: str
    """"fused": one operation. "projections": two, with the model's own code between. Else what computes them instead."""
    why: str
    """The activation, or the reason why they are not fused."""
    weights: str
    """Type or encoding, and shape."""
    adapter: str
    """Inside the operation, or why PEFT adds it to the weights; of the active ones."""
    kernels: str
    """"31 of 31": how many of a step's kernels are in the cache; "-" if smlora does not compute the layer."""
    records: str
    """"4 of 4": for how many pieces of work of a step it is recorded which kernel is the fastest."""


class Status(tuple[Layer, ...]):
    """A Layer for each module of experts; as text a table, in which equal layers share a line."""

    def __str__(self) -> str:
        shared = {}
        for layer in self:
            pattern = re.sub(r"\d+", "*", layer.path)
            shared.setdefault((pattern, *layer[1:]), []).append(layer)
        rows = [("layers", "number", *Layer._fields[1:])]
        rows += [(layers[0].path if len(layers) == 1 else key[0], str(len(layers)), *key[1:]) for key, layers in shared.items()]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join(lines) if self else "no experts"

    __repr__ = __str__


def _weights(module):
    described = []
    for name in parameters_of(module):
        try:
            weight = quantized_weight(module, name)
        except ValueError:
            described.append("quantised in another way")
            continue
        weight = module._parameters.get(name) if weight is None else weight
        if weight is None:
            described.append("of another form")
            continue
        kind = getattr(weight, "encoding", None) or str(weight.dtype).removeprefix("torch.")
        if getattr(weight, "is_arranged", False):
            kind += " arranged"
        here = f", {weight.to_local().shape[0]} here" if is_spread(weight) else ""
        described.append(f"{kind} {list(weight.shape)}{here}")
    return ", ".join(described)


def _adapters(active):
    """{module: what is to be said of its adapters}"""
    described = {}
    for module, parameters in active.items():
        said = {}
        for parameter, (wrapper, name, reason) in parameters.items():
            if name is None:
                text = "merged" if wrapper.merged else "not active"
            elif reason is None:
                text = f"rank {wrapper.r[name]} inside"
            else:
                text = f"added to the weights: {reason}"
            said.setdefault(text, []).append(parameter)
        described[module] = "; ".join(f"{', '.join(sorted(names))}: {text}" for text, names in sorted(said.items()))
    return described


def _readiness(model, path, module, activation, adapters, tokens, known):
    """(kernels, records); known: {step: report} of the layers before."""
    try:
        steps = steps_of_layer(model, path, module, activation, adapters)
        for step in steps:
            if step not in known:
                known[step] = compile_steps(step.problems, step.rows(tokens), step.activation, check_only=True)
    except (Error, ValueError, NotImplementedError) as error:
        return (f"unknown: {error}",) * 2
    report = merged([known[step] for step in steps])
    return f"{report['found']} of {report['kernels']}", f"{report['recorded']} of {report['works']}"


def status(model: torch.nn.Module, tokens: Sequence[int] = ()) -> Status:
    """A table of the experts of a model of Transformers, with or without PEFT's adapters: what computes each layer, and why,
    how its weights are stored, where its adapter is added, and whether the kernels of a training step and the records of
    which are fastest are there, for the GPU of this machine or else sm_90a.

    tokens: the numbers of tokens of a step on one rank; a few typical numbers if it is empty.
    Returns a `Status`: print it, or read its `Layer`s. Raises ValueError that names the argument."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {model!r:.80} of type {type(model).__name__}")
    tokens = check_tokens(tokens)
    active, layers, known = adapted(model), [], {}
    adapters = _adapters(active)
    for path, module in experts_of(model):
        how = runs(module)
        ready = ("-", "-")
        if how.on_smlora:
            ready = _readiness(model, path, module, how.activation, active, tokens, known)
        layers.append(Layer(
            path, type(module).__name__, how.how, how.why, _weights(module), adapters.get(module, "none"), *ready
        ))
    return Status(layers)
