"""Starts smlora-tune, which lies beside this file, with the NVRTC that the package compiles kernels with. Imports no torch."""

import importlib.util
import os
import pathlib
import sys


def _folders():
    """Where the library looks for NVRTC from Python (docs/python.md), in its order."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            folders += [os.path.join(os.environ[name], folder) for folder in ("lib64", "lib")]
    for name in ("nvidia", "torch"):
        try:
            package = importlib.util.find_spec(name)
        except ValueError:  # a module without a spec goes by that name
            package = None
        for folder in (package.submodule_search_locations or []) if package is not None else []:
            root = pathlib.Path(folder) if name == "nvidia" else pathlib.Path(folder).parent / "nvidia"
            folders += sorted({str(file.parent) for file in root.glob("*/lib/libnvrtc.so.*")}, reverse=True)
    return list(dict.fromkeys(folder for folder in folders if folder))


def main() -> None:
    program = pathlib.Path(__file__).resolve().parent / "smlora-tune"
    environment = dict(os.environ)
    folders = _folders()
    if folders:
        environment["LD_LIBRARY_PATH"] = ":".join(folders)
    os.execve(program, ["smlora-tune", *sys.argv[1:]], environment)
