"""Adapters on experts as servers read them.

    import smlora.adapters
    smlora.adapters.export("adapter", to="vllm-2d", out="adapter-vllm")

    python -m smlora.adapters adapter --to vllm-2d --out adapter-vllm

PEFT keeps the adapters of all experts of a projection in two matrices. docs/serving.md says what each server reads instead."""

from smlora.adapters._export import export
from smlora.adapters._layouts import LAYOUTS

__all__ = ["LAYOUTS", "export"]
