"""smlora: LoRA training of Mixture-of-Experts layers with kernels that are compiled for the shapes of the model.

    routing = smlora.route(top_idx, num_experts)
    y = smlora.moe_lora_linear(x, weight, routing, lora_A, lora_B, scaling=2.0)

T tokens, each sent to top_k of E experts: M = T * top_k rows. K inputs, N outputs, R the rank of the adapters."""

from smlora._activation import GPT_OSS, Activation, gated_activation
from smlora._library import Error, cache_stats, set_determinism, system_info
from smlora._linear import MoELoRALinear, adapter_views, moe_lora_linear
from smlora._mlp import Adapter, moe_lora_mlp
from smlora._native import version as __version__
from smlora._prewarm import Problem, prewarm, tune
from smlora._routing import Routing, route, routing_of_counts
from smlora._rows import combine, group
from smlora.quantized import (
    QuantizedWeight,
    dequantize,
    from_bnb,
    from_compressed_tensors,
    from_fp8,
    from_mxfp4,
    from_mxfp8,
    from_nvfp4,
    from_torchao,
    quantize,
)

__all__ = [
    "GPT_OSS",
    "Activation",
    "Adapter",
    "Error",
    "MoELoRALinear",
    "Problem",
    "QuantizedWeight",
    "Routing",
    "adapter_views",
    "cache_stats",
    "combine",
    "dequantize",
    "from_bnb",
    "from_compressed_tensors",
    "from_fp8",
    "from_mxfp4",
    "from_mxfp8",
    "from_nvfp4",
    "from_torchao",
    "gated_activation",
    "group",
    "moe_lora_linear",
    "moe_lora_mlp",
    "prewarm",
    "quantize",
    "route",
    "routing_of_counts",
    "set_determinism",
    "system_info",
    "tune",
]
