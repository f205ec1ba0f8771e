"""The library behind the package: its engines, where it looks for NVRTC and for records, its errors."""

import atexit
import functools
import importlib.util
import json
import os
import pathlib
from typing import Any, Optional

import torch

from smlora import _native


class Error(RuntimeError):
    """A failure of the driver, the compiler or the cache. Wrong arguments are ValueError, requests that a backend or
    device cannot serve NotImplementedError, and host memory that ran out MemoryError. `code` names what failed, as the C
    interface does: "no_device", "cuda", "compile", "io", "not_ready", "jit_off", "forked" or "internal"."""

    code: Optional[str] = None


Error.__module__ = "smlora"

# In the order of smlora_dtype; those of the second list are of quantised weights alone.
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int32, torch.int64]
PACKED_DTYPES = [torch.uint8, torch.int8, torch.float8_e4m3fn, getattr(torch, "float8_e8m0fnu", None)]
_native.set_torch(DTYPES + PACKED_DTYPES, Error)

_CUDA, _CPU = 0, 1


def nvrtc_folders():
    """Where torch's wheels put NVRTC: nvidia/cu13/lib, nvidia/cuda_nvrtc/lib and their like."""
    try:
        package = importlib.util.find_spec("nvidia")
    except ValueError:  # a module without a spec goes by that name
        package = None
    # A file nvidia.py beside the user's script hides the package and has no folders; torch's wheels lie beside torch.
    folders = package.submodule_search_locations if package is not None else None
    roots = dict.fromkeys([*(folders or []), str(pathlib.Path(torch.__file__).parents[1] / "nvidia")])
    release = (torch.version.cuda or "13").split(".")[0]
    names = [f"cu{release}", "cuda_nvrtc"]
    return [str(pathlib.Path(root).resolve() / name / "lib") for root in roots for name in names]


_native.set_nvrtc_folders(nvrtc_folders())


# The tuning records that come with the package. Resolved, as some installers link every file, and the cache follows no link.
_SHIPPED_LAYER = str(pathlib.Path(__file__).resolve().parent / "cache")


# In the order of smlora_determinism; None: what SMLORA_DETERMINISM says.
_DETERMINISMS = [None, "run", "batch"]
_determinism = None


def set_determinism(determinism: str) -> None:
    """Which calls of this process have the same bits, whatever SMLORA_DETERMINISM says. "run": those with the same input.
    "batch": also rows with the same input, whatever other rows the batch has; docs/rl.md says what is promised. Before the
    first operation: afterwards a change raises RuntimeError, as kernels are chosen. ValueError for another word."""
    global _determinism
    if determinism not in _DETERMINISMS[1:]:
        raise ValueError(f'determinism: expected "run" or "batch", got {determinism!r}')
    if determinism != _determinism and (cuda_engine.cache_info().currsize or cpu_engine.cache_info().currsize):
        raise RuntimeError(f"determinism: expected before the first operation of the process, got {determinism!r} after it")
    _determinism = determinism


@functools.cache
def cuda_engine():
    return _native.engine(_CUDA, 0, _SHIPPED_LAYER, 0, _DETERMINISMS.index(_determinism))


@functools.cache
def cpu_engine():
    return _native.engine(_CPU, 0, _SHIPPED_LAYER, torch.get_num_threads(), _DETERMINISMS.index(_determinism))


def _forget_engines():
    cuda_engine.cache_clear()
    cpu_engine.cache_clear()


# An engine has threads, which a forked child does not have: it makes its own.
os.register_at_fork(after_in_child=_forget_engines)


@atexit.register
def _count_use():
    # The interpreter ends without destroying them.
    for engine in (cuda_engine, cpu_engine):
        if engine.cache_info().currsize:
            _native.count_use(engine())


@functools.cache
def _workspace_of(device):
    return functools.partial(torch.empty, dtype=torch.uint8, device=device)


def place(tensor):
    """(engine, stream, allocator of workspaces) for the device of `tensor`, which is the current one if it is a GPU. The
    CPU backend takes its workspaces from the heap."""
    if tensor.is_cuda:
        index = tensor.get_device()
        return cuda_engine(), torch._C._cuda_getCurrentRawStream(index), _workspace_of(tensor.device)
    return cpu_engine(), 0, None


def system_info() -> dict[str, Any]:
    """A dict: smlora's version, the CUDA driver, the NVRTC that compiles kernels, the architectures that it can compile
    for, and the GPUs. What is missing is said in it, never by an exception."""
    return json.loads(_native.system_info())


def cache_stats(device: str = "cuda") -> dict[str, Any]:
    """A dict: the folders of the kernel cache and, of this process's engine for `device`, how many kernels were found in
    memory, found on disk and compiled."""
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError):
        kind = None
    if kind not in ("cpu", "cuda"):
        raise ValueError(f'device: expected "cpu" or "cuda", got {device!r}')
    engine = cpu_engine() if kind == "cpu" else cuda_engine()
    return json.loads(_native.cache_stats(engine))
