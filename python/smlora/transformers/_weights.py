"""Where the modules of models keep the weights of their experts, plain or quantised. A parametrised attribute is never read:
that would decode it."""

import torch

from smlora.quantized import QuantizedParameters, from_bnb, from_fp8, from_mxfp4, from_mxfp8, from_torchao

PARAMETERS = ("gate_up_proj", "down_proj")
UNGATED_PARAMETERS = ("up_proj", "down_proj")
PLAIN = (torch.bfloat16, torch.float16, torch.float32, torch.float64)

_PROXIES_OF_PEFT = ("_LoraParameterProxy", "_LoraFactorsProxy")

# ---- sources ----------------------------------------------------------------------------------------------------------
#
# Each gives None, or (the codes as they are stored, a function that makes the weight, one that lists the tensors which it
# is made of). The weight has the shape that the plain parameter would have: [E, out, in], or [E, in, out] where the module
# says is_transposed.


def _as_the_module(module, weight):
    """Of a weight that is stored [E, out, in] whatever the module says."""
    return weight.transpose(1, 2) if module.is_transposed else weight


def parametrizations_of(module, name):
    """The list of them, without what PEFT leaves behind on weights that were parametrised before; None if there is none."""
    lists = module._modules.get("parametrizations")
    if lists is None or name not in lists:
        return None
    steps = lists[name]
    for i in reversed(range(1, len(steps))):
        if type(steps[i]).__name__ in _PROXIES_OF_PEFT and _state_of(steps[0]) is not None:
            del steps[i]
    return steps


def _state_of(step):
    """What bitsandbytes' parametrisation of 4 bits knows, or axolotl's of 8 bits."""
    state = getattr(step, "quant_state", None)
    return getattr(step, "row_stats", None) if state is None else state


def _scales_of(state):
    """Those of a state of bitsandbytes, and of the scales themselves if they are quantised."""
    while state is not None:
        absmax = getattr(state, "absmax", state)
        yield absmax
        state = getattr(state, "state2", None)


def _parametrised(module, name):
    steps = parametrizations_of(module, name)
    if steps is None or _state_of(steps[0]) is None:
        return None
    if len(steps) > 1:
        raise ValueError(f"{name}: expected no parametrisation after that of bitsandbytes, got {type(steps[1]).__name__}")
    state = _state_of(steps[0])
    return steps.original, lambda: from_bnb(steps.original, state), lambda: [steps.original, *_scales_of(state)]


def _params4bit(module, name):
    parameter = module._parameters.get(name)
    if getattr(parameter, "quant_state", None) is None:
        return None
    return parameter, lambda: from_bnb(parameter), lambda: [parameter, *_scales_of(parameter.quant_state)]


def _linears(module, name):
    linears = module._modules.get(f"{name}s")
    if not isinstance(linears, torch.nn.ModuleList) or len(linears) == 0:
        return None
    weights = [linear.weight for linear in linears]
    if any(getattr(weight, "quant_state", None) is None for weight in weights):
        return None
    adapted = next((linear for linear in linears if hasattr(linear, "base_layer")), None)
    if adapted is not None:
        raise ValueError(
            f"{name}s: expected linear layers without adapters of their own, which one operation for all experts would leave "
            f'out, got {type(adapted).__name__}; PEFT adapts them together with target_parameters=["{name}"]'
        )

    def stack():
        """The modules keep their parameters, as views of what was stacked: nothing stays in memory twice."""
        weight = from_bnb(weights)
        for parameter, codes in zip(weights, weight.codes):
            parameter.data = codes.view(parameter.shape)
        return _as_the_module(module, weight)

    return weights[0], stack, lambda: [part for each in weights for part in (each, *_scales_of(each.quant_state))]


def _blocks(module, name):
    blocks, scales = (module._parameters.get(f"{name}_{kind}") for kind in ("blocks", "scales"))
    if blocks is None or scales is None:
        return None
    return blocks, lambda: _as_the_module(module, from_mxfp4(blocks, scales)), lambda: [blocks, scales]


def _fp8(module, name):
    codes, scales = module._parameters.get(name), module._parameters.get(f"{name}_scale_inv")
    if codes is None or scales is None or codes.dtype not in (torch.float8_e4m3fn, torch.int8):
        return None

    def make():
        # Transformers loads both as if they were to be trained.
        codes.requires_grad_(False)
        scales.requires_grad_(False)
        if codes.dtype == torch.int8:
            return from_mxfp4(codes, scales)
        block = module.block_size
        if block is not None and list(block) == [1, 32]:
            return from_mxfp8(codes, scales)
        # Gate and up have blocks of their own; without block_size each is one block.
        return from_fp8(codes, scales, max(codes.shape[1:]) if block is None else block, 2 if name == "gate_up_proj" else 1)

    return codes, make, lambda: [codes, scales]


def _torchao(module, name):
    parameter = module._parameters.get(name)
    tensor = getattr(parameter, "data", None)
    if not type(tensor).__module__.startswith("torchao."):
        return None
    parts = [getattr(tensor, part) for part in ("qdata", "scale", "per_tensor_scale") if getattr(tensor, part, None) is not None]
    return getattr(tensor, "qdata", tensor), lambda: from_torchao(tensor), lambda: parts


_SOURCES = (_parametrised, _params4bit, _linears, _blocks, _fp8, _torchao)

_MADE = "_smlora_weights"
"""{name: (what it was made of, QuantizedWeight)} of a module: making one costs more than looking at it."""

_ARRANGED = "_smlora_arranged"
"""Names of weights whose scales are arranged when the weight is made."""

_DECODED = "_smlora_decoded"

# ---- what others ask for ----------------------------------------------------------------------------------------------


def is_gated(module):
    return getattr(module, "has_gate", True)


def parameters_of(module):
    """The names of the weights of its two projections."""
    return PARAMETERS if is_gated(module) else UNGATED_PARAMETERS


def quantized_weight(module, name):
    """The QuantizedWeight of the module's parameter `name`, of the shape that the parameter would have, or None. Raises
    ValueError that says why if it is quantised in a way that smlora has not."""
    parameter = module._parameters.get(name)
    if type(parameter) is torch.nn.Parameter and parameter.dtype in PLAIN:
        return None
    own = module._modules.get(name)
    if isinstance(own, QuantizedParameters):
        return own()
    made = getattr(module, _MADE, {})
    if torch.compiler.is_compiling():
        return made[name][1] if name in made else None
    for source in _SOURCES:
        found = source(module, name)
        if found is not None:
            codes, make, parts = found
            arranges = name in getattr(module, _ARRANGED, ())

            def seen(codes):
                # Other memory after module.to(..) and after loading. Arranged scales are a copy, which does not follow what
                # is loaded into the others.
                return (*_place(codes), *(_version(part) for part in parts())) if arranges else _place(codes)

            if name not in made or made[name][0] != seen(codes):
                weight = make()
                if arranges:
                    weight = weight.arranged()
                setattr(module, _MADE, {**made, name: (seen(weight.codes), weight)})
            return getattr(module, _MADE)[name][1]
    return None


def mark_as_decoded(module):
    """The module's weights are plain, whatever scales it still has."""
    setattr(module, _DECODED, True)


def is_marked_as_decoded(module):
    return hasattr(module, _DECODED)


def arrange_from_now_on(module, name):
    """Whenever the weight is made, also in other memory."""
    setattr(module, _ARRANGED, {*getattr(module, _ARRANGED, ()), name})
    forget(module, name)


def forget(module, name):
    """What was made of the parameter before."""
    if name in getattr(module, _MADE, {}):
        del getattr(module, _MADE)[name]


def _version(tensor):
    """Another one after each change in place, and in other memory."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _place(tensor):
    return tensor.data_ptr(), tensor.device


def _check_for_casts(module, name, weight):
    """Codes of FP8 are floating point: model.to(dtype) makes plain numbers of them."""
    if f"{name}_scale_inv" in module._parameters and not is_marked_as_decoded(module):
        raise ValueError(
            f"{name}: expected codes of torch.float8_e4m3fn beside {name}_scale_inv, got {weight.dtype}, to which the "
            "model was cast; load it with dtype= instead"
        )


def weight_of(module, name):
    """The QuantizedWeight, or the parameter."""
    weight = quantized_weight(module, name)
    if weight is not None:
        return weight
    weight = getattr(module, name)
    _check_for_casts(module, name, weight)
    return weight


def bias_of(module, name):
    """[E, out]"""
    linears = module._modules.get(f"{name}s")
    if isinstance(linears, torch.nn.ModuleList):
        return torch.stack([linear.bias for linear in linears])
    return getattr(module, f"{name}_bias")


def is_quantized(module):
    """Whether a weight of the experts of this module is quantised, in whatever way."""
    for name in PARAMETERS:
        try:
            if quantized_weight(module, name) is not None:
                return True
        except ValueError:
            return True
    return False


def is_held(module, name):
    """Whether a quantised weight lies where the model's own code would not find it."""
    held = isinstance(module._modules.get(name), QuantizedParameters) or f"{name}_blocks" in module._parameters
    return held or isinstance(module._modules.get(f"{name}s"), torch.nn.ModuleList)


def stand_in(module, name):
    """A parameter with shape, type and device of the decoded weight and no memory of that size: what PEFT needs to know of
    it. None if the weight is plain."""
    weight = quantized_weight(module, name)
    if weight is None:
        return None
    dtype = getattr(getattr(module, "config", None), "dtype", None)
    dtype = dtype if dtype in PLAIN else torch.bfloat16
    one = torch.zeros((), dtype=dtype, device=weight.device)
    return torch.nn.Parameter(one.expand(weight.shape), requires_grad=False)
