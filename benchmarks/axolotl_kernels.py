"""axolotl's Triton kernels out of a checkout, without axolotl installed: their package needs nothing but torch and Triton, and
the packages around it, which do, stay out."""

import importlib
import logging
import pathlib
import sys
import types

import torch

PACKAGE = "axolotl.integrations.kernels.libs.scattermoe_lora"


def _library_in(folder):
    root = pathlib.Path(folder).resolve()
    path = pathlib.Path(*PACKAGE.split("."))
    for candidate in (root / "src" / path, root / path, root):
        if (candidate / "kernels" / "lora_ops.py").exists():
            return candidate
    raise FileNotFoundError(f"{root}: expected a checkout of axolotl, or the folder of its scattermoe_lora")


def load(folder):
    """Makes imports of the package's modules resolve to the files in `folder`, a checkout or that package's own folder."""
    library = _library_in(folder)
    parent = None
    parts = PACKAGE.split(".")
    for depth, part in enumerate(parts, 1):
        name = ".".join(parts[:depth])
        module = types.ModuleType(name)
        module.__path__ = [str(library)] if name == PACKAGE else []
        sys.modules[name] = module
        if parent is not None:
            setattr(parent, part, module)
        parent = module
    # All that the package takes from the rest of axolotl.
    logs = types.ModuleType("axolotl.utils.logging")
    logs.get_logger = logging.getLogger
    sys.modules["axolotl.utils"] = types.ModuleType("axolotl.utils")
    sys.modules["axolotl.utils.logging"] = logs


def _is_among_the_few(config):
    """64 or 128 rows with 4 or 8 warps, 64 or 128 of every other size, 3 or 4 stages: where the best of the whole space were
    found on an H200; the whole search gave the same forward within 2 %."""
    sizes = config.kwargs
    rows = sizes.get("BLOCK_M")
    return (
        all(size in (64, 128) for name, size in sizes.items() if name.startswith("BLOCK_"))
        and config.num_stages in (3, 4)
        and config.num_warps == (8 if rows == 128 else 4)
    )


# What the authors took for their kernels on packed weights on an H200, of which the rule above has hardly any.
_MEASURED = {
    "_scatter2scatter_lora_mx": ("_GLM_MX_SUBSET", "MNK"), "_scatter2scatter_lora_dX_mx": ("_GLM_DX_MX_SUBSET", "MKN")
}


def _measured(module, kernel):
    """[(sizes, warps, stages)]"""
    name, sides = _MEASURED.get(kernel, ("", ""))
    return [
        ({f"BLOCK_{side}": size for side, size in zip(sides, sizes)}, warps, stages)
        for *sizes, warps, stages in getattr(module, name, ())
    ]


def restrict_search():
    """Leaves a handful of each kernel's configurations, of 72 to 108. Returns how many, by kernel."""
    left = {}
    for name in ("ops", "lora_ops"):
        module = importlib.import_module(f"{PACKAGE}.kernels.{name}")
        for kernel, value in vars(module).items():
            if hasattr(value, "configs") and len(value.configs) > 1:
                measured = _measured(module, kernel)
                few = [
                    config for config in value.configs
                    if _is_among_the_few(config) or (config.kwargs, config.num_warps, config.num_stages) in measured
                ]
                value.configs = few or value.configs
                left[kernel] = len(value.configs)
    return left


def torchao_tensor(weight):
    """torchao's tensor of the bytes of an mxfp4 or nvfp4 weight [E, N, K] of smlora's, which axolotl takes as a parameter."""
    if weight.encoding == "mxfp4":
        from torchao.prototype.mx_formats.mx_tensor import MXTensor

        return MXTensor(weight.codes, weight.scales.view(torch.float8_e8m0fnu), torch.float4_e2m1fn_x2, weight.block,
                        torch.bfloat16, None, None, False)
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor

    return NVFP4Tensor(weight.codes, weight.scales, weight.block, torch.bfloat16,
                       per_tensor_scale=weight.global_scales.reshape(weight.E, 1, 1).contiguous())
