"""Weights that bitsandbytes quantised."""

import math
from typing import Any, Optional, Sequence

import torch

from smlora._arguments import described
from smlora.quantized._names import names_arguments
from smlora.quantized._stack import stacked
from smlora.quantized._weight import QuantizedWeight


_of_a_state = names_arguments(
    codes="param_or_codes", scales="quant_state.absmax", table="quant_state.code", block="quant_state.blocksize",
    outer_scales="quant_state.state2.absmax", outer_table="quant_state.state2.code", outer_offset="quant_state.offset",
    outer_block="quant_state.state2.blocksize"
)


def _shape_of(codes, state, shape):
    """[E, rows, columns]. What is quantised as one matrix has to be told where experts begin."""
    if shape is None:
        shape = codes.shape if state is None else state.shape
    shape = tuple(shape)
    if len(shape) != 3:
        raise ValueError(f"shape: expected [E, rows, columns], which the weight does not say, got {list(shape)}")
    return shape


def _double(state, device):
    """The fields of scales that are quantised themselves."""
    if not state.nested:
        return {}
    return {
        "outer_scales": state.state2.absmax.detach().to(device),
        "outer_table": state.state2.code.detach().to(device),
        "outer_offset": state.offset.detach().reshape(1).to(device),
        "outer_block": state.state2.blocksize,
    }


def decoded_scales(codes, table, scales, block, offset):
    """fp32, the values that bitsandbytes takes for scales that are quantised, with a rounding after the product and one after
    the sum."""
    return table[codes.long()] * scales.repeat_interleave(block)[: codes.numel()] + offset


def _plain_scales(state):
    if not state.nested:
        return state.absmax
    inner = state.state2
    return decoded_scales(state.absmax, inner.code, inner.absmax, inner.blocksize, state.offset)


def _check_state(state):
    if getattr(state, "quant_type", None) not in ("nf4", "fp4"):
        raise ValueError(f"quant_state: expected a QuantState of nf4 or fp4, got {described(state)}")


@_of_a_state
def _four_bits(codes, state, shape):
    _check_state(state)
    E, rows, columns = _shape_of(codes, state, shape)
    device = codes.device
    return QuantizedWeight(
        state.quant_type, E, rows, columns, codes.detach().view(torch.uint8), state.absmax.detach().to(device),
        block=state.blocksize, table=state.code.detach().to(device), **_double(state, device)
    ).check()


@_of_a_state
def _four_bits_of_experts(params, states, shape):
    """Blocks of a weight count along all experts, which those of single ones do if no block is cut off."""
    for state in states:
        _check_state(state)
    first = states[0]
    E, *matrix = _shape_of(None, None, (len(states), *first.shape[-2:]) if shape is None else shape)
    if E != len(states):
        raise ValueError(f"shape: expected {len(states)} experts, as many as param_or_codes has, got {list(shape)}")
    values = math.prod(matrix)
    for e, state in enumerate(states):
        alike = state.quant_type == first.quant_type and state.blocksize == first.blocksize and state.shape == first.shape
        if not alike:
            raise ValueError(
                f"quant_state[{e}]: expected {first.quant_type} {list(first.shape)} in blocks of {first.blocksize}, as of "
                f"expert 0, got {state.quant_type} {list(state.shape)} in blocks of {state.blocksize}"
            )
    if values % first.blocksize:
        raise ValueError(
            f"param_or_codes: expected experts of a multiple of {first.blocksize} values, the block, got {list(matrix)}"
        )
    codes = stacked("param_or_codes", [param.view(torch.uint8) for param in params])
    scales = torch.cat([_plain_scales(state).detach().reshape(-1).to(codes.device) for state in states])
    return QuantizedWeight(
        first.quant_type, len(states), *matrix, codes, scales, block=first.blocksize,
        table=first.code.detach().to(codes.device)
    ).check()


@names_arguments(codes="param_or_codes", scales="quant_state")
def _eight_bits(codes, scales, shape):
    E, rows, columns = _shape_of(codes, None, shape)
    if not isinstance(scales, torch.Tensor) or scales.numel() != E * rows:
        raise ValueError(f"quant_state: expected the scales [E, rows] = [{E}, {rows}] of int8 codes, got {described(scales)}")
    scales = scales.detach().reshape(E, rows).to(codes.device)
    return QuantizedWeight("int8", E, rows, columns, codes.detach().view(E, rows, columns), scales).check()


def from_bnb(param_or_codes: torch.Tensor, quant_state: Any = None, shape: Optional[Sequence[int]] = None) -> QuantizedWeight:
    """A `QuantizedWeight` [E, rows, columns] of what bitsandbytes holds.

    param_or_codes: a Params4bit or Int8Params; or the codes alone with their `quant_state`, a QuantState, or for int8 the fp32
    scale of each row (SCB). Of a module that replace_parameter_4bit changed, these are `module.parametrizations[name].original`
    and `module.parametrizations[name][0].quant_state`: `module.name` itself would decode it. Or a list of these, one for each
    expert ([linear.weight for linear in ..]), which is stacked; scales that are quantised become fp32 then.
    shape: [E, rows, columns], where the weight was quantised as one matrix. Nothing else is copied but scales that are on
    another device than the codes. Raises ValueError that names the argument."""
    if isinstance(param_or_codes, (list, tuple)) and param_or_codes:
        return _of_experts(param_or_codes, quant_state, shape)
    _check_tensor("param_or_codes", param_or_codes)
    state = _state_of(param_or_codes) if quant_state is None else quant_state
    if shape is None:
        shape = getattr(param_or_codes, "_original_shape", None)
    codes = _plain(param_or_codes)
    return _eight_bits(codes, state, shape) if codes.dtype == torch.int8 else _four_bits(codes, state, shape)


def _of_experts(params, states, shape):
    for e, param in enumerate(params):
        _check_tensor(f"param_or_codes[{e}]", param)
    states = [_state_of(param) for param in params] if states is None else states
    if not isinstance(states, (list, tuple)) or len(states) != len(params):
        raise ValueError(f"quant_state: expected a list of {len(params)}, as of param_or_codes, got {described(states)}")
    codes = [_plain(param) for param in params]
    if codes[0].dtype == torch.int8:
        return _eight_bits(stacked("param_or_codes", codes), stacked("quant_state", states), shape)
    return _four_bits_of_experts(codes, states, shape)


def _check_tensor(name, value):
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: expected a tensor, got {described(value)}")


def _plain(param):
    """Without what a subclass makes of it."""
    return param.detach().as_subclass(torch.Tensor)


def _state_of(param):
    state = getattr(param, "quant_state", None)
    state = getattr(param, "SCB", None) if state is None else state
    if state is None:
        raise ValueError("quant_state: expected one, as param_or_codes has none of its own, got None")
    return state
