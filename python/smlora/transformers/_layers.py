"""The modules of experts of a model, what computes them, and which adapters they have."""

from typing import NamedTuple

import torch

from smlora.transformers._experts import BY_THE_MODEL, between_projections, has_norm, reason_against
from smlora.transformers._names import NAME, is_name_of_ours
from smlora.transformers._peft import reason_to_materialise
from smlora.transformers._weights import is_gated


def experts_of(model):
    """Yields (path, module), without the wrappers of PEFT around them."""
    for path, module in model.named_modules():
        # PEFT's wrappers pass on the attributes of what they wrap.
        if type(module).__name__ != "ParamWrapper" and _is_experts(module):
            yield path.replace(".base_layer", ""), module


def _is_experts(module):
    parameter = module._parameters.get("gate_up_proj")
    return hasattr(module, "is_transposed") or (isinstance(parameter, torch.Tensor) and parameter.dim() == 3)


class Runs(NamedTuple):
    how: str
    """"fused": one operation. "projections": two, with the model's own code between. Else what computes them instead."""
    why: str
    activation: object = None
    """An Activation if they are fused."""

    @property
    def on_smlora(self):
        return self.how in ("fused", "projections")


def runs(module):
    """What computes a module of experts."""
    if not hasattr(module, "is_transposed"):
        return Runs("the model's own code", f"{type(module).__name__} offers no experts_implementation")
    implementation = module.config._experts_implementation
    if not is_name_of_ours(implementation):
        return Runs(str(implementation), f'not loaded with experts_implementation="{NAME}"')
    reason = reason_against(module)
    if reason is not None:
        return Runs("grouped_mm", reason)
    activation = between_projections(module)
    if activation is not BY_THE_MODEL:
        return Runs("fused", activation.kind, activation)
    if not is_gated(module):
        return Runs("projections", "no gate projection")
    return Runs("projections", "a norm after each expert" if has_norm(module) else "an activation of its own")


class Adapted(NamedTuple):
    """What PEFT's wrapper of one parameter does at the next call."""

    wrapper: object
    name: str
    """Of the adapter; None if none is active."""
    reason: str
    """Why PEFT adds it to the weights; None if it is inside the operation, or if none is active."""


def adapted(model):
    """{module of experts: {parameter: Adapted}}"""
    found = {}
    for wrapper in model.modules():
        if type(wrapper).__name__ != "ParamWrapper":
            continue
        names = [name for name in wrapper.active_adapters if name in wrapper.lora_A]
        if wrapper.disable_adapters or wrapper.merged:
            names = []
        reason = reason_to_materialise(wrapper, names) if names else None
        parameters = found.setdefault(wrapper.get_base_layer(), {})
        parameters[wrapper.parameter_name] = Adapted(wrapper, next(iter(names), None), reason)
    return found
