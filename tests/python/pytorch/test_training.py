"""Loss over many steps in bf16: how far smlora strays from fp32, and how far eager does."""

import statistics

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")
peft = pytest.importorskip("peft", reason="needs peft")

import smlora.transformers as st  # noqa: E402

st.register()

VOCABULARY, BATCH, LENGTH = 96, 8, 64
TARGETS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def model_of(implementation, dtype, device):
    """The same weights every time, rounded to bf16 whatever the type."""
    config = transformers.Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=128, moe_intermediate_size=64, num_experts=16,
        num_experts_per_tok=4, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        norm_topk_prob=True, max_position_embeddings=LENGTH, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )
    config._experts_implementation = implementation
    torch.manual_seed(1)
    model = transformers.Qwen3MoeForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    model = model.bfloat16().to(device, dtype)
    return peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=[], target_parameters=TARGETS))


def batches(steps, device):
    """Of a language in which each token allows four."""
    generator = torch.Generator().manual_seed(2)
    followers = torch.randint(VOCABULARY, (VOCABULARY, 4), generator=generator)
    for _ in range(steps):
        ids = [torch.randint(VOCABULARY, (BATCH,), generator=generator)]
        while len(ids) < LENGTH:
            ids.append(followers[ids[-1], torch.randint(4, (BATCH,), generator=generator)])
        yield torch.stack(ids, 1).to(device)


def losses_of(implementation, dtype, steps, device):
    model = model_of(implementation, dtype, device).train()
    torch.manual_seed(3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses = []
    for ids in batches(steps, device):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses).float().tolist()


def test_losses_stray_no_further_than_eagers(device):
    """200 steps on a GPU, 15 on the CPU. Two runs in bf16 part by rounding, and by tokens between two experts."""
    steps = 200 if device.type == "cuda" else 15
    exact = losses_of("eager", torch.float32, steps, device)
    eager, smlora = (losses_of(implementation, torch.bfloat16, steps, device) for implementation in ("eager", "smlora"))
    assert exact[-1] < exact[0] - (0.5 if steps == 200 else 0.01)

    def apart(a, b):
        return [abs(x - y) for x, y in zip(a, b, strict=True)]

    pairs = {"eager to fp32": apart(eager, exact), "smlora to fp32": apart(smlora, exact),
             "smlora to eager": apart(smlora, eager)}
    print(f"{steps} steps, loss {exact[0]:.4f} to {exact[-1]:.4f} (fp32), {eager[-1]:.4f} (eager), {smlora[-1]:.4f} (smlora)")
    for pair, deviations in pairs.items():
        print(f"{pair}: mean {statistics.mean(deviations):.5f}, at most {max(deviations):.5f}")
    means = {pair: statistics.mean(deviations) for pair, deviations in pairs.items()}
    assert means["smlora to fp32"] < 1.5 * means["eager to fp32"] + 1e-3
    assert max(pairs["smlora to fp32"]) < 2 * max(pairs["eager to fp32"]) + 2e-3
