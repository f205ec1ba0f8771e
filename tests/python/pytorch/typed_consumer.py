"""What a project that checks its types writes: mypy --strict finds nothing to complain of, and the result types that are asserted."""

from typing import Any

import torch
from typing_extensions import assert_type

import smlora
import smlora.adapters
import smlora.transformers

x, weight = torch.zeros(3, 8), torch.zeros(2, 8, 16)
down = torch.zeros(2, 8, 4)
routing = smlora.route(torch.zeros(3, 1, dtype=torch.int32), num_experts=2)
assert_type(routing, smlora.Routing)
assert_type(smlora.routing_of_counts([2, 1], rows=3), smlora.Routing)
A, B = smlora.adapter_views(torch.zeros(4, 8), torch.zeros(16, 4), 2, layout="peft")
assert_type(A, torch.Tensor)
y = smlora.moe_lora_linear(x, weight, routing, A, B, scaling=2.0, x_rows="token")
assert_type(y, torch.Tensor)
quantized = smlora.quantize(weight, "nf4", block=64)
assert_type(quantized, smlora.QuantizedWeight)
assert_type(quantized.transpose(1, 2).shape, torch.Size)
assert_type(smlora.dequantize(quantized, torch.float32), torch.Tensor)
activation = smlora.Activation("swiglu_clamped", True, 1.702, 7.0)
adapter = smlora.Adapter(A, B, 0.5)
out = smlora.moe_lora_mlp(x, quantized, down, routing, activation=activation, gate_up_lora=adapter)
assert_type(out, torch.Tensor)
assert_type(smlora.gated_activation(smlora.group(x, routing), "swiglu"), torch.Tensor)
assert_type(smlora.combine(y, top_k=1), torch.Tensor)
assert_type(smlora.from_mxfp4(x, x), smlora.QuantizedWeight)
assert_type(smlora.from_fp8([x, x], [x, x], block=128), smlora.QuantizedWeight)
assert_type(smlora.cache_stats("cpu"), dict[str, Any])
problem = smlora.Problem(2, 8, 16, 2, 1, adapter_dtype=torch.float32, weights=quantized)
assert_type(smlora.prewarm([problem], [512], archs=["sm_90a"]), dict[str, Any])
assert_type(smlora.tune([problem], [512], seconds=10.0, progress=lambda step: step["done"] < 3), dict[str, Any])
layer = smlora.MoELoRALinear(2, 8, 16, 4, lora_alpha=8.0, device="cpu")
assert_type(layer.forward(x, routing), torch.Tensor)
smlora.transformers.register("nf4", block=64)
assert_type(smlora.transformers.quantize_experts(layer, "nf4"), smlora.MoELoRALinear)
assert_type(smlora.transformers.status(layer, [512])[0].runs, str)
assert_type(smlora.adapters.export("adapter", "vllm", "out").rank, int)
try:
    pass
except smlora.Error as error:
    assert_type(error.code, str | None)
