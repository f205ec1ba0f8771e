"""The names and signatures of axolotl's scattermoe_lora library over smlora's operations.

    import smlora.scattermoe
    smlora.scattermoe.install()

after which `axolotl.integrations.kernels.libs.scattermoe_lora` and its modules `kernels` and all in it, `parallel_experts`,
`parallel_linear_lora`, `lora_ops`, `multi_lora`, `mx_weights`, `selective_dequant` and `selective_dequant_kernel` are those of
this package, whether axolotl is installed or not.
Weights are [E, K, N], lora_A [E * R, K] and lora_B [N, E * R] with column e * R + r. What concerned Triton alone, such as
`int64_indices` and `use_fused_dX`, is taken and has no effect: offsets are always 64 bits, and no path materialises more."""

from smlora.scattermoe import kernels
from smlora.scattermoe._install import install
from smlora.scattermoe.lora_ops import ParallelExperts
from smlora.scattermoe.multi_lora import ScatterMoEMultiLoRA, build_multilora_routing, scatter2scatter_multilora
from smlora.scattermoe.parallel_experts import flatten_sort_count, parallel_linear
from smlora.scattermoe.parallel_linear_lora import ScatterMoELoRA, parallel_linear_lora

__all__ = [
    "ParallelExperts",
    "ScatterMoELoRA",
    "ScatterMoEMultiLoRA",
    "build_multilora_routing",
    "flatten_sort_count",
    "install",
    "kernels",
    "parallel_linear",
    "parallel_linear_lora",
    "scatter2scatter_multilora",
]
