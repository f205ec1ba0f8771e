"""Scales of quantised experts in the order in which products take them."""

import torch

from smlora.quantized import QuantizedParameters
from smlora.quantized._weight import ARRANGED
from smlora.transformers._conversion import Model
from smlora.transformers._experts import find_out_anew
from smlora.transformers._warnings import warn_once
from smlora.transformers._weights import arrange_from_now_on, parameters_of, quantized_weight


@torch.no_grad()
def arrange_experts(model: Model) -> Model:
    """Arranges the scales of experts in `model` that are quantised, in any encoding but int8, and returns the model: bfloat16
    products then decode the codes while they multiply them (`QuantizedWeight.arranged`). Weights that cannot be
    arranged stay as they are, with a warning that says why. Call it before training, on the device of the
    training. Where smlora holds the weights, the arranged scales take the place of the others, also in a state_dict. Modules
    that hold them as a checkpoint has them keep those, and the arranged ones come on top: a seventeenth of mxfp4's bytes, a
    quarter of nvfp4's."""
    for module in model.modules():
        for name in parameters_of(module):
            weight = quantized_weight(module, name)
            if weight is None or weight.encoding not in ARRANGED or weight.is_arranged:
                continue
            try:
                arranged = weight.arranged()
            except ValueError as error:
                warn_once(f"{name} of {type(module).__name__} is decoded before products multiply it: {error}")
                continue
            if isinstance(module._modules.get(name), QuantizedParameters):
                module._modules[name].take(arranged)
            else:
                arrange_from_now_on(module, name)
            find_out_anew(module)
    return model
