"""The names and signatures of axolotl's scattermoe_lora library over smlora's operations.

    import smlora.scattermoe
    smlora.scattermoe.install()

after which `axolotl.integrations.kernels.libs.scattermoe_lora` and its modules `kernels.ops`, `kernels.lora_ops`,
`parallel_experts`, `parallel_linear_lora` and `lora_ops` are those of this package, whether axolotl is installed or not.
Weights are [E, K, N], lora_A [E * R, K] and lora_B [N, E * R] with column e * R + r. What concerned Triton alone, such as
`int64_indices` and `use_fused_dX`, is taken and has no effect: offsets are always 64 bits, and no path materialises more."""

from smlora.scattermoe import kernels
from smlora.scattermoe._install import install
from smlora.scattermoe.lora_ops import ParallelExperts
from smlora.scattermoe.parallel_experts import flatten_sort_count, parallel_linear
from smlora.scattermoe.parallel_linear_lora import ScatterMoELoRA, parallel_linear_lora

__all__ = [
    "ParallelExperts",
    "ScatterMoELoRA",
    "flatten_sort_count",
    "install",
    "kernels",
    "parallel_linear",
    "parallel_linear_lora",
]
