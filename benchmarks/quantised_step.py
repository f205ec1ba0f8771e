#!/usr/bin/env python3
"""Times a training step of a Qwen3-30B-A3B-like model of a few layers with random weights, its experts plain or quantised, and
its memory: smlora in bf16 and on quantised weights, beside axolotl's path for bitsandbytes' experts.

    python benchmarks/quantised_step.py                                  bf16, nf4, mxfp4 and fp8 on smlora
    python benchmarks/quantised_step.py --run smlora:bf16,smlora:mxfp4,smlora:mxfp4-arranged --tokens 1024,8192
    python benchmarks/quantised_step.py --axolotl ~/axolotl              also axolotl in bf16 and on nf4; needs bitsandbytes
    python benchmarks/quantised_step.py --axolotl ~/axolotl --run axolotl:mxfp4,axolotl:nvfp4        need torchao

"experts" is the step less that of a model whose experts do nothing. smlora:ENCODING-arranged arranges the scales, for products
that decode. axolotl's mxfp4 and nvfp4 are its kernels that decode, on smlora's bytes. Needs a GPU, Transformers, PEFT and
smlora's package."""

import argparse
import gc
import json
import statistics
import sys
import traceback

import peft
import torch
import transformers
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

import axolotl_kernels
import smlora.transformers

PROJECTIONS = ("gate_up_proj", "down_proj")
RUNS = "smlora:bf16,smlora:nf4,smlora:mxfp4,smlora:fp8"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help=f"WHO:WEIGHTS, separated by commas [{RUNS}]", default="")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", default="8192", help="of a step, several separated by commas [%(default)s]")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--adapters", choices=("fp32", "bf16"), default="fp32", help="their type [fp32, as PEFT makes them]")
    parser.add_argument("--axolotl", metavar="FOLDER", help="a checkout of axolotl to take its kernels from")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    runs = arguments.run or RUNS + (",axolotl:bf16,axolotl:nf4" if arguments.axolotl else "")
    arguments.run = [tuple(run.split(":")) for run in runs.split(",")]
    arguments.tokens = [int(tokens) for tokens in arguments.tokens.split(",")]
    return arguments


def nothing(module, hidden_states, top_k_index, top_k_weights):
    return hidden_states * top_k_weights.sum(-1, keepdim=True).to(hidden_states.dtype)


def register(folder):
    smlora.transformers.register()
    ALL_EXPERTS_FUNCTIONS.register("nothing", nothing)
    if folder is None:
        return
    axolotl_kernels.load(folder)
    axolotl_kernels.restrict_search()
    from axolotl.integrations.kernels.libs.scattermoe_lora.experts import register_scattermoe_experts

    register_scattermoe_experts()


def quantise(model, who, weights):
    if weights == "bf16":
        return
    if who == "smlora":
        smlora.transformers.quantize_experts(model, weights.removesuffix("-arranged"))
        if weights.endswith("-arranged"):
            smlora.transformers.arrange_experts(model)
        return
    if weights in ("mxfp4", "nvfp4"):
        for layer in model.model.layers:
            for name in PROJECTIONS:
                weight = smlora.quantize(getattr(layer.mlp.experts, name), weights)
                tensor = axolotl_kernels.torchao_tensor(weight)
                setattr(layer.mlp.experts, name, torch.nn.Parameter(tensor, requires_grad=False))
        return
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    for layer in model.model.layers:
        for name in PROJECTIONS:
            replace_parameter_4bit(layer.mlp.experts, name, quant_type=weights, compress_statistics=False)


def make(who, weights, arguments):
    """The model with its adapters, and the peak of memory while it was made."""
    implementation = {"smlora": "smlora", "axolotl": "scattermoe", "nothing": "nothing"}[who]
    config = Qwen3MoeConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_experts=128,
        num_experts_per_tok=8, num_hidden_layers=arguments.layers, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        norm_topk_prob=True, decoder_sparse_step=1, output_router_logits=False)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    # Tokens stay as different as in a trained model: else later layers leave experts without rows, more of them with each step.
    torch.nn.init.normal_(model.model.embed_tokens.weight)
    quantise(model, who, weights)
    model.config._experts_implementation = implementation
    targets = {"target_modules": ["q_proj"]}
    if who != "nothing":
        paths = [f"model.layers.{i}.mlp.experts.{name}" for i in range(arguments.layers) for name in PROJECTIONS]
        targets = {"target_modules": [], "target_parameters": paths}
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, lora_dropout=0.0, **targets),
        autocast_adapter_dtype=arguments.adapters == "fp32")
    model.enable_input_require_grads()
    return model.train()


def measure(who, weights, tokens, arguments):
    model = make(who, weights, arguments)
    ids = torch.randint(0, 32000, (1, tokens), device="cuda")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step():
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    losses = [step().item() for _ in range(3)]
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(arguments.steps):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        loss = step()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    gradients = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "ms": statistics.median(times), "loss": [losses[0], loss.item()], "held_gib": held / 2**30,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30, "trainable": gradients,
    }


def compare(tokens, arguments):
    """{WHO:WEIGHTS: result} of steps of so many tokens, printed as they come."""
    results = {}
    for who, weights in [("nothing", "bf16"), *arguments.run]:
        name = f"{who}:{weights}"
        try:
            result = measure(who, weights, tokens, arguments)
        except Exception as error:
            traceback.print_exc(limit=6)
            result = {"error": f"{type(error).__name__}: {error}"[:300]}
        results[name] = result
        gc.collect()
        torch.cuda.empty_cache()
        if "error" in result:
            print(f"{tokens:6} tokens {name}: {result['error']}", flush=True)
            continue
        result["experts_ms"] = result["ms"] - results["nothing:bf16"]["ms"]
        print(f"{tokens:6} tokens {name:22} step {result['ms']:8.2f} ms   experts {result['experts_ms']:8.2f} ms   "
              f"held {result['held_gib']:6.2f} GiB   peak {result['peak_gib']:6.2f} GiB   "
              f"loss {result['loss'][0]:.4f} .. {result['loss'][1]:.4f}", flush=True)
    return results


def main():
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        sys.exit("quantised_step.py needs a GPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}, "
          f"peft {peft.__version__}; {arguments.layers} layers, rank {arguments.rank}, adapters in {arguments.adapters}")
    register(arguments.axolotl)
    results = {}
    for tokens in arguments.tokens:
        results[tokens] = compare(tokens, arguments)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
