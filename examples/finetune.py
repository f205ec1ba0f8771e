"""Trains a small Mixture-of-Experts language model from scratch, then adapts it to another text with LoRA on its experts:
once with eager's loop over experts, once with smlora, from the same start and on the same batches.

    python examples/finetune.py [--device cuda|cpu] [--seconds 60] [--steps 100] [--picture finetune.png] [--weights nf4]

With --weights the experts are quantised before they are adapted: smlora computes with the codes, eager with decoded values.

Both texts come with the repository: its prose (docs/, README.md) to learn from scratch, its CUDA (kernel_templates/) to adapt
to. Prints the losses on text that was held back, the speed and, on a GPU, the memory of both, and draws their curves, which
must agree: otherwise the exit status is 1. Needs torch, transformers, peft and matplotlib."""

import argparse
import copy
import pathlib
import sys
import time

import matplotlib
import smlora.transformers
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTH, BATCH = 128, 8
# Curves of losses by two orders of summation drift apart slowly; a wrong gradient shows at once.
AGREEMENT = 0.02


def text_of(*patterns):
    files = sorted(file for pattern in patterns for file in ROOT.glob(pattern))
    return torch.tensor(list("\n".join(file.read_text() for file in files).encode()))


class Text:
    """Bytes to learn from, and the last tenth to test with."""

    def __init__(self, content, device):
        held_back = len(content) // 10
        self.train, self.test = content[:-held_back].to(device), content[-held_back:].to(device)

    @staticmethod
    def batch(content, generator):
        starts = torch.randint(len(content) - LENGTH, (BATCH,), generator=generator)
        return torch.stack([content[start : start + LENGTH] for start in starts.tolist()])


def new_model(device, dtype):
    config = Qwen3MoeConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, moe_intermediate_size=64, num_experts=16,
        num_experts_per_tok=4, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        norm_topk_prob=True, max_position_embeddings=LENGTH, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )
    config._experts_implementation = "eager"
    return Qwen3MoeForCausalLM(config).to(device, dtype)


def loss_of(model, ids):
    return model(input_ids=ids, labels=ids).loss


@torch.no_grad()
def test_loss(model, text):
    model.eval()
    generator = torch.Generator().manual_seed(11)
    losses = [float(loss_of(model, text.batch(text.test, generator))) for _ in range(4)]
    model.train()
    return sum(losses) / len(losses)


def train_from_scratch(model, text, seconds):
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    begin, steps = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        loss = loss_of(model, text.batch(text.train, generator))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return steps


def experts(model, implementation, weights):
    """A copy of the model for the implementation, with experts of this encoding, or of what they decode to for eager, which
    knows plain ones alone."""
    model = copy.deepcopy(model)
    model.set_experts_implementation(implementation)
    if weights is not None:
        smlora.transformers.quantize_experts(model, weights)
        if implementation == "eager":
            smlora.transformers.dequantize_experts(model, torch.float32)
    return model


def adapt(model, text, steps):
    """(adapted model, losses, tokens per second, peak MiB on the GPU or None)"""
    torch.manual_seed(2)
    model = get_peft_model(model, LoraConfig(
        r=8, lora_alpha=16, target_modules=[],
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    ))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    generator = torch.Generator().manual_seed(3)
    on_gpu = next(model.parameters()).is_cuda
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    losses, times = [], []
    for _ in range(steps):
        ids = text.batch(text.train, generator)
        begin = time.perf_counter()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))  # waits for the GPU
        times.append(time.perf_counter() - begin)
    middle = sorted(times)[len(times) // 2]
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    return model, losses, BATCH * LENGTH / middle, memory


def mebibytes_of_experts(model):
    return sum(tensor.nbytes for name, tensor in model.state_dict().items() if ".experts." in name) / 2**20


def draw(curves, path):
    figure, axes = plt.subplots(figsize=(7, 4))
    for (name, losses), style in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(losses, style, label=name)
    axes.set(xlabel="step", ylabel="loss (nats a byte)", title="LoRA on the experts of a small MoE")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=60, help="of training from scratch")
    parser.add_argument("--steps", type=int, default=100, help="of LoRA, with each implementation")
    parser.add_argument("--picture", default="finetune.png")
    parser.add_argument("--weights", choices=("nf4", "fp4", "mxfp4", "nvfp4", "fp8", "mxfp8", "int8", "int4"),
                        help="encoding of the experts that are adapted [plain]")
    arguments = parser.parse_args()

    smlora.transformers.register()
    torch.manual_seed(0)
    prose = Text(text_of("README.md", "docs/**/*.md"), arguments.device)
    cuda = Text(text_of("kernel_templates/**/*.cuh"), arguments.device)
    model = new_model(arguments.device, torch.float32)
    steps = train_from_scratch(model, prose, arguments.seconds)
    print(f"from scratch: {steps} steps in {arguments.seconds:g} s, loss {test_loss(model, prose):.3f} on prose, "
          f"{test_loss(model, cuda):.3f} on CUDA")

    if arguments.weights is not None:
        sizes = [mebibytes_of_experts(experts(model, "smlora", weights)) for weights in (None, arguments.weights)]
        print(f"experts: {sizes[0]:.2f} MiB, quantised ({arguments.weights}) {sizes[1]:.2f} MiB")
    curves = {}
    print(f"{'experts':8} {'loss on CUDA':>13} {'tokens/s':>9} {'memory':>10}")
    for implementation in ("eager", "smlora"):
        adapted, losses, speed, memory = adapt(
            experts(model, implementation, arguments.weights), cuda, arguments.steps
        )
        curves[implementation] = losses
        shown = "-" if memory is None else f"{memory:.0f} MiB"
        print(f"{implementation:8} {test_loss(adapted, cuda):13.3f} {speed:9.0f} {shown:>10}")
    draw(curves, arguments.picture)

    apart = max(abs(a - b) / a for a, b in zip(*curves.values(), strict=True))
    print(f"The curves ({arguments.picture}) are at most {apart:.2%} apart.")
    return 0 if apart <= AGREEMENT else 1


if __name__ == "__main__":
    sys.exit(main())
