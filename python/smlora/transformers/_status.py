"""What of a model smlora computes, and why not the rest."""

import re
from typing import NamedTuple

import torch

from smlora.transformers._experts import BY_THE_MODEL, between_projections, has_norm, reason_against
from smlora.transformers._names import NAME
from smlora.transformers._parallel import is_spread
from smlora.transformers._peft import reason_to_materialise
from smlora.transformers._weights import is_gated, parameters_of, quantized_weight


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


class Status(tuple):
    """A Layer for each module of experts; as text a table, in which equal layers share a line."""

    def __str__(self):
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


def _runs(module):
    """(runs, why)"""
    if not hasattr(module, "is_transposed"):
        return "the model's own code", f"{type(module).__name__} offers no experts_implementation"
    implementation = module.config._experts_implementation
    if implementation != NAME:
        return str(implementation), f'not loaded with experts_implementation="{NAME}"'
    reason = reason_against(module)
    if reason is not None:
        return "grouped_mm", reason
    activation = between_projections(module)
    if activation is not BY_THE_MODEL:
        return "fused", activation.kind
    if not is_gated(module):
        return "projections", "no gate projection"
    return "projections", "a norm after each expert" if has_norm(module) else "an activation of its own"


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
        here = f", {weight.to_local().shape[0]} here" if is_spread(weight) else ""
        described.append(f"{kind} {list(weight.shape)}{here}")
    return ", ".join(described)


def _adapters(model):
    """{module: what is to be said of its adapters}"""
    described = {}
    for wrapper in model.modules():
        if type(wrapper).__name__ != "ParamWrapper":
            continue
        names = [name for name in wrapper.active_adapters if name in wrapper.lora_A]
        reason = reason_to_materialise(wrapper, names) if names else None
        if wrapper.disable_adapters or wrapper.merged or not names:
            text = "merged" if wrapper.merged else "not active"
        elif reason is None:
            text = f"rank {wrapper.r[names[0]]} inside"
        else:
            text = f"added to the weights: {reason}"
        described.setdefault(wrapper.get_base_layer(), {}).setdefault(text, []).append(wrapper.parameter_name)
    return {
        module: "; ".join(f"{', '.join(sorted(names))}: {text}" for text, names in sorted(said.items()))
        for module, said in described.items()
    }


def _is_experts(module):
    parameter = module._parameters.get("gate_up_proj")
    return hasattr(module, "is_transposed") or (isinstance(parameter, torch.Tensor) and parameter.dim() == 3)


def status(model):
    """A table of the experts of a model of Transformers, with or without PEFT's adapters: what computes each layer, and why,
    how its weights are stored, and where its adapter is added. Returns a `Status`: print it, or read its `Layer`s. Raises
    ValueError if `model` is no module."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {model!r:.80} of type {type(model).__name__}")
    adapters = _adapters(model)
    layers = []
    for path, module in model.named_modules():
        # PEFT's wrappers pass on the attributes of what they wrap.
        if type(module).__name__ == "ParamWrapper" or not _is_experts(module):
            continue
        path, adapter = path.replace(".base_layer", ""), adapters.get(module, "none")
        layers.append(Layer(path, type(module).__name__, *_runs(module), _weights(module), adapter))
    return Status(layers)
