"""How each server wants the tensors of an adapter named and laid out."""

import re
from typing import Callable, NamedTuple, Optional

import torch

from smlora.adapters._factors import NOT_SWAPPED_SINCE, PREFIX
from smlora.adapters._uniform import with_both_projections
from smlora.transformers._weights import is_gated, parameters_of

RANKS_OF_VLLM = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What its --max-lora-rank may be."""

_OF_ONE_EXPERT = re.compile(r"(?P<module>.*\.experts\.(?P<expert>\d+)\..+)\.weight")


class Layout(NamedTuple):
    """`tensors`: of an Adapter with one rank and scaling, its {name: tensor}. `ranks`: the server's, None for any."""

    tensors: Callable
    complete: bool
    """Whether both projections of experts need an adapter."""
    ranks: Optional[tuple] = None
    by_module: bool = True
    """Whether the config names modules, not parameters."""


def _pair(module, A, B, embedding=False):
    kind, end = ("embedding_", "") if embedding else ("", ".weight")
    return {f"{PREFIX}{module}.lora_{kind}A{end}": A, f"{PREFIX}{module}.lora_{kind}B{end}": B}


def _others(adapter, name=lambda path, factors: path):
    return {key: tensor for path, factors in adapter.others.items()
            for key, tensor in _pair(name(path, factors), factors.A, factors.B, factors.embedding).items()}


# ---- all experts of a projection in two matrices ----------------------------------------------------------------------


def _matrices(A, B):
    """[E * R, K], and [N, R * E] with the experts' columns side by side."""
    E, N, R = B.shape
    return A.reshape(E * R, -1), B.permute(1, 2, 0).reshape(N, R * E)


def _peft(adapter):
    tensors = _others(adapter)
    for factors in adapter.experts.values():
        tensors |= _pair(factors.key, *_matrices(factors.A, factors.B))
    return tensors


def _vllm(adapter):
    tensors = _others(adapter)
    for (path, name), factors in adapter.experts.items():
        inner = name == parameters_of(adapter.base.experts[path])[0]
        tensors |= _pair(f"{path}.base_layer" if inner else path, *_matrices(factors.A, factors.B))
    return tensors


# ---- each expert for itself -------------------------------------------------------------------------------------------


def _in_checkpoint(adapter):
    """path, Factors: what the checkpoint calls the module."""

    def name(path, factors):
        if factors.embedding:
            return path
        parts = adapter.base.names_in_checkpoint(f"{path}.weight", factors.B)
        renamed = next(iter(parts))
        return renamed.removesuffix(".weight") if len(parts) == 1 and renamed.endswith(".weight") else path

    return name


def _by_expert(adapter):
    tensors = _others(adapter, _in_checkpoint(adapter))
    for (path, name), factors in adapter.experts.items():
        module = adapter.base.experts[path]
        stored = factors.B.transpose(1, 2) if module.is_transposed else factors.B
        for part, B in adapter.base.names_in_checkpoint(f"{path}.{name}", stored).items():
            match = _OF_ONE_EXPERT.fullmatch(part)
            if match is None or module.is_transposed:
                raise ValueError(
                    f"to: the checkpoints of {type(module).__name__} keep all experts in one tensor, {part}, and have no names "
                    f'for one expert; expected to="vllm" or to="sglang"'
                )
            tensors |= _pair(match["module"], factors.A[int(match["expert"])], B)
    return tensors


# ---- all experts of a projection in two tensors -----------------------------------------------------------------------


def _sglang(adapter):
    tensors = _others(adapter)
    for (path, name), factors in adapter.experts.items():
        module, B = adapter.base.experts[path], factors.B
        if not is_gated(module):
            raise ValueError(f'to: {type(module).__name__} has no gate projection, which to="sglang" needs')
        if name == "gate_up_proj" and not module.is_concatenated:
            # Its loader takes halves and interleaves them itself.
            B = torch.cat([B[:, 0::2], B[:, 1::2]], 1)
        tensors |= _pair(f"{path}.{name}", factors.A, B)
    return tensors


LAYOUTS = {
    "vllm": Layout(_vllm, complete=True, ranks=RANKS_OF_VLLM, by_module=False),
    "vllm-2d": Layout(_by_expert, complete=True, ranks=RANKS_OF_VLLM),
    "sglang": Layout(_sglang, complete=True),
    "gguf-2d": Layout(_by_expert, complete=True),
    "peft": Layout(_peft, complete=False, by_module=False),
}


def _targets_by_parameter(adapter):
    """What PEFT has to wrap to read the file."""
    names = {name for _, name in adapter.experts}
    listed = list(adapter.config.get("target_parameters") or ())
    missing = {name for name in names if not any(target.rpartition(".")[2] == name for target in listed)}
    added = {f"{path}.{name}" for path, name in adapter.experts if name in missing}
    return {"target_parameters": listed + sorted(added)}


def _targets_by_module(tensors):
    modules = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in tensors}
    return {"target_modules": sorted({module.rpartition(".")[2] for module in modules}), "target_parameters": None}


def laid_out(adapter, layout):
    """(config, {name: tensor}) of an Adapter with one rank and scaling."""
    if layout.complete:
        adapter = with_both_projections(adapter)
    tensors = layout.tensors(adapter)
    targets = _targets_by_module(tensors) if layout.by_module else _targets_by_parameter(adapter)
    version = ".".join(map(str, NOT_SWAPPED_SINCE))
    return adapter.config | targets | {"peft_version": version, "inference_mode": True}, tensors
