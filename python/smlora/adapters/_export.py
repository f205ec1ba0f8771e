"""Writing an adapter for a server."""

import os
import pathlib
from typing import NamedTuple, Optional

from smlora.adapters._factors import adapter_of
from smlora.adapters._folder import Saved, read, refuse_existing, write
from smlora.adapters._layouts import LAYOUTS, laid_out
from smlora.adapters._uniform import ranks_of, uniform


class Exported(NamedTuple):
    """What was written."""

    path: pathlib.Path
    rank: int
    """Of every module: those of a lower one were filled up with zeros."""
    scaling: float
    layers: int
    """With experts."""


def _rank(adapter, layout, wanted):
    largest = max(ranks_of(adapter))
    if wanted is not None:
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < largest:
            raise ValueError(f"rank: expected a whole number from {largest}, the largest rank of the adapter, got {wanted!r}")
        if layout.ranks is not None and wanted not in layout.ranks:
            raise ValueError(f"rank: expected one of {', '.join(map(str, layout.ranks))}, got {wanted}")
        return wanted
    if layout.ranks is None:
        return largest
    rank = next((rank for rank in layout.ranks if rank >= largest), None)
    if rank is None:
        raise ValueError(f"to: expected an adapter of a rank up to {layout.ranks[-1]}, got {largest}")
    return rank


def export(path: str | os.PathLike[str], to: str, out: str | os.PathLike[str], *, base: Optional[str | os.PathLike[str]] = None,
           rank: Optional[int] = None) -> Exported:
    """Writes the adapter in the folder `path`, which PEFT saved, into the new folder `out` as a server reads it, and returns
    what was written. The product of every module's factors and scaling stays what it is.

    to: "vllm": PEFT's names, for model classes of vLLM that load experts in two matrices. "vllm-2d": every expert for itself.
    "sglang": [E, R, K] and [E, N, R]. "gguf-2d": what llama.cpp's convert_lora_to_gguf.py reads. "peft": PEFT's own layout,
    also of an adapter that PEFT before 0.19.1 saved.
    base: the folder or name of the model, of which config.json alone is read [base_model_name_or_path of the adapter].
    rank: of all modules of the result [the largest of the adapter's, for vLLM the next that it has].

    Raises ValueError that names what is wrong with an argument, a file or a tensor, and OSError if `out` cannot be written;
    there is no folder `out` then. Needs transformers and safetensors."""
    if to not in LAYOUTS:
        raise ValueError(f"to: expected one of {', '.join(LAYOUTS)}, got {to!r}")
    refuse_existing(out)
    layout = LAYOUTS[to]
    adapter = adapter_of(read(path), base)
    adapter = uniform(adapter, _rank(adapter, layout, rank))
    config, tensors = laid_out(adapter, layout)
    write(out, Saved(config, tensors))
    scaling = next(iter(adapter.experts.values())).scaling
    return Exported(pathlib.Path(out), config["r"], scaling, len({path for path, _ in adapter.experts}))
