"""A GPU for tests of which kernels a program launches. Operations on CPU tensors are launched on an emulated GPU, too, which
runs nothing (emulator/README.md, SMLORA_EMULATOR_RUN), so that the program goes on with the results of the CPU backend:

    python emulated_gpu.py PROGRAM ARGUMENTS..

`environment()` is what such a process needs."""

import functools
import importlib.util
import os
import pathlib
import runpy
import sys

import pytest

LIBRARIES = "SMLORA_EMULATOR_LIBRARIES"


def environment(cache, **variables):
    """Of a process whose kernels lie in the folder `cache`."""
    folder = os.environ.get(LIBRARIES)
    if folder is None:
        pytest.skip(f"needs {LIBRARIES}, the folder of the emulated libcuda and NVRTC")
    paths = [folder, *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    return os.environ | dict(
        LD_LIBRARY_PATH=":".join(filter(None, paths)), SMLORA_EMULATOR_RUN="0", SMLORA_CACHE_DIR=str(cache),
        SMLORA_TUNING="record-only", PYTHONPATH=":".join(filter(None, sys.path)), CUDA_VISIBLE_DEVICES="",
    ) | variables


def _launched_too(call):
    import torch

    def workspace(size):
        """Aligned as torch aligns memory of a GPU."""
        memory = torch.empty(size + 256, dtype=torch.uint8)
        return memory[-memory.data_ptr() % 256:][:size]

    @functools.wraps(call)
    def both(engine, stream, allocate, *arguments):
        from smlora._library import cuda_engine

        # fp64 is for the CPU: numbers on which a model's activation is tried.
        if all(getattr(argument, "dtype", None) != torch.float64 for argument in arguments):
            call(cuda_engine(), 0, workspace, *arguments)
        return call(engine, stream, allocate, *arguments)

    return both


def install():
    """Before smlora is imported, whose modules keep the functions of its extension module."""
    folder = pathlib.Path(importlib.util.find_spec("smlora").origin).parent
    spec = importlib.util.spec_from_file_location("smlora._native", next(folder.glob("_native*.so")))
    native = sys.modules["smlora._native"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    for name in native.schemas:
        setattr(native, name, _launched_too(getattr(native, name)))


if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(pathlib.Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
