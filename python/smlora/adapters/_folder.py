"""Folders of adapters as PEFT writes them: adapter_config.json beside adapter_model.safetensors."""

import json
import os
import pathlib
import shutil
from typing import NamedTuple

import torch

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


class Saved(NamedTuple):
    """What a folder holds."""

    config: dict
    tensors: dict


def read(folder):
    """The Saved of a folder, with its tensors on the CPU. Raises ValueError that names the file that is missing or wrong."""
    folder = pathlib.Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"path: expected the folder of an adapter, with {CONFIG} in it, got {folder}")
    try:
        config = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: expected JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG}: expected a JSON object, got {type(config).__name__}")
    if (folder / WEIGHTS).is_file():
        from safetensors.torch import load_file

        return Saved(config, load_file(folder / WEIGHTS))
    if (folder / OLD_WEIGHTS).is_file():
        return Saved(config, torch.load(folder / OLD_WEIGHTS, map_location="cpu", weights_only=True))
    raise ValueError(f"path: expected {WEIGHTS} or {OLD_WEIGHTS} in {folder}, found neither")


def refuse_existing(out):
    if os.path.lexists(out):
        raise ValueError(f"out: expected a folder that does not exist, got {out}")


def write(out, saved):
    """Writes the folder as a whole or not at all: it has its name only when everything is on the disk."""
    from safetensors.torch import save_file

    out = pathlib.Path(out)
    refuse_existing(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        # The format has no two names for one memory.
        tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in saved.tensors.items()}
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / CONFIG).write_text(json.dumps(saved.config, indent=2, sort_keys=True) + "\n")
        for file in (*partial.iterdir(), partial):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        refuse_existing(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
