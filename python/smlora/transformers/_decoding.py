"""Plain experts of quantised ones."""

import torch
from torch.nn.utils import parametrize

from smlora.transformers._weights import PARAMETERS, forget, parametrizations_of, quantized_weight


def _forget(module, name):
    """Removes what held the quantised weight."""
    forget(module, name)
    if parametrizations_of(module, name) is not None:
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    module._modules.pop(name, None)
    for stored in (name, f"{name}_blocks", f"{name}_scales", f"{name}_scale_inv"):
        module._parameters.pop(stored, None)
    linears = module._modules.pop(f"{name}s", None)
    if linears is not None and linears[0].bias is not None:
        bias = torch.stack([linear.bias for linear in linears])
        module.register_parameter(f"{name}_bias", torch.nn.Parameter(bias, requires_grad=False))


@torch.no_grad()
def dequantize_experts(model, dtype=torch.bfloat16):
    """Replaces every quantised weight of experts in `model` by a plain, frozen parameter of its values, one after the other, and
    returns the model. It is then as large as if it had never been quantised. PEFT's adapters stay, and can be merged afterwards
    with merge_and_unload."""
    for module in model.modules():
        for name in PARAMETERS:
            weight = quantized_weight(module, name)
            if weight is None:
                continue
            values = weight.dequantize(dtype).contiguous()
            _forget(module, name)
            module.register_parameter(name, torch.nn.Parameter(values, requires_grad=False))
    return model
