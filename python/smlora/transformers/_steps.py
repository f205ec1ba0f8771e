"""What a training step of a model asks of the library, known before it runs."""

import dataclasses
import math

import torch

from smlora._activation import Activation
from smlora._prewarm import WeightForm, form_of
from smlora.transformers._experts import problems_of, weight_in_out
from smlora.transformers._layers import adapted, experts_of, runs
from smlora.transformers._parallel import Arrival, arrivals, is_spread, local_shape
from smlora.transformers._weights import PLAIN, parameters_of, weight_of

# ---- types ------------------------------------------------------------------------------------------------------------


def _autocast_type():
    """Without a GPU autocast for one cannot be switched on; that of the CPU stands for it."""
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
    return None


def _type_of_rows(module):
    weight = weight_of(module, parameters_of(module)[0])
    if isinstance(weight, torch.Tensor):
        return weight.dtype
    dtype = getattr(getattr(module, "config", None), "dtype", None)
    return dtype if dtype in PLAIN else torch.bfloat16


# ---- what a router hands to the experts -------------------------------------------------------------------------------

_TOP_K = ("num_experts_per_tok", "top_k_experts", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k")
"""What configs call the number of experts of a token."""


class _Routed(Exception):
    """(top_k, type of the gates), in place of a result of the experts."""


def _stop_at_the_experts(module, arguments, named):
    tensors = [value for value in (*arguments, *named.values()) if isinstance(value, torch.Tensor)]
    index = next(tensor for tensor in tensors if not tensor.is_floating_point())
    gates = next(tensor for tensor in reversed(tensors) if tensor.is_floating_point())
    if index.dim() != 2 or gates.shape != index.shape:
        raise ValueError
    raise _Routed(index.shape[1], gates.dtype)


@torch.no_grad()
def _ask_the_router(block, experts, width, dtype):
    """(top_k, type of the gates), found out by running the block that holds the experts up to them, without any numbers;
    None if it cannot be run so."""
    # Before those of FSDP, which would gather weights.
    hook = experts.register_forward_pre_hook(_stop_at_the_experts, prepend=True, with_kwargs=True)
    tensors = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in (*block.named_parameters(), *block.named_buffers())
    }
    try:
        torch.func.functional_call(block, tensors, (torch.empty(1, 4, width, dtype=dtype, device="meta"),))
    except _Routed as routed:
        return routed.args
    except Exception:  # whatever a model's own code may raise without numbers
        pass
    finally:
        hook.remove()
    return None


def _routed(model, path, module, width, dtype):
    """(top_k, the types that its gates may have)."""
    if _autocast_type() is None:
        parent, _, name = path.rpartition(".")
        block = model.get_submodule(parent)
        found = _ask_the_router(block, getattr(block, name), width, dtype) if name else None
        if found is not None:
            top_k, gates = found
            return top_k, [gates if gates in (dtype, torch.float32) else torch.float32]
    config = module.config.get_text_config()
    top_k = next((value for value in (getattr(config, key, None) for key in _TOP_K) if isinstance(value, int)), None)
    if top_k is None:
        raise ValueError(
            f"model: expected a config with one of {', '.join(_TOP_K)}, the number of experts of a token of {path}, got none"
        )
    return top_k, sorted({dtype, torch.float32}, key=str)


# ---- steps ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Step:
    """Of one kind of module of experts, and one way in which tokens arrive there."""

    problems: tuple
    activation: Activation
    """None if the model's own code runs between the projections."""
    arrival: Arrival

    def rows(self, tokens):
        """The numbers of rows that stand for those of all its calls, where a rank has so many tokens."""
        if not self.arrival.is_average:
            return tokens
        if not tokens:
            raise ValueError(
                "tokens: expected numbers of tokens with experts that are spread over ranks, as their rows depend on them, "
                "got none"
            )
        # Of those that a rank receives, half and twice as many are compiled for, too.
        rows = [math.ceil(T * self.arrival.rows_per_token) for T in tokens]
        return sorted({max(1, number) for row in rows for number in (row // 2, row, 2 * row)})


def _form(module, parameter):
    weight = module._parameters.get(parameter)
    if not is_spread(weight):
        return form_of(weight_in_out(module, parameter))
    E, first, second = local_shape(module, parameter)
    return WeightForm((E, first, second), "ekn") if module.is_transposed else WeightForm((E, second, first), "enk")


def _adapters(parameters, dtype):
    """{parameter: (rank, type inside the operation)}"""
    found = {}
    for parameter, (wrapper, name, reason) in parameters.items():
        if name is None or reason is not None:
            continue
        types = {wrapper.lora_A[name].weight.dtype, wrapper.lora_B[name].weight.dtype}
        inside = types.pop() if len(types) == 1 else torch.float32
        found[parameter] = wrapper.r[name], inside if inside == dtype else torch.float32
    return found


def steps_of_layer(model, path, module, activation, adapters):
    """The `Step`s of a module of experts that smlora computes, with the activation of `runs` and the adapters of `adapted`."""
    forms = [_form(module, parameter) for parameter in parameters_of(module)]
    dtype = _autocast_type() or _type_of_rows(module)
    top_k, gate_types = _routed(model, path, module, forms[0].shape[1], dtype)
    inside = _adapters(adapters.get(module, {}), dtype)
    steps = []
    for arrival in arrivals(module, top_k):
        problems = []
        for gate_dtype in [None] if arrival.one_expert else gate_types:
            problems += problems_of(module, forms, 1 if arrival.one_expert else top_k, dtype, inside, gate_dtype)
        steps.append(Step(tuple(dict.fromkeys(problems)), activation, arrival))
    return steps


def steps_of(model):
    """The distinct `Step`s of the experts of a model that smlora computes. Raises ValueError if there are none."""
    steps, reasons = [], []
    adapters = adapted(model)
    for path, module in experts_of(model):
        how = runs(module)
        if how.on_smlora:
            steps += steps_of_layer(model, path, module, how.activation, adapters)
        else:
            reasons.append(f"{path} runs on {how.how}: {how.why}")
    if not steps:
        said = reasons[0] if reasons else "there is no module of experts in it"
        raise ValueError(f"model: expected experts that smlora computes, got none: {said}")
    return list(dict.fromkeys(steps))
