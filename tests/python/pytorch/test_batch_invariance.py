"""Batch-invariant mode: what a sequence computes has the same bits alone and in a batch, and under replayed routing."""

import os
import subprocess
import sys

import pytest
import smlora
import torch
import torch.utils.checkpoint

E, K, N, R, TOP_K = 6, 32, 24, 4, 2
LENGTHS = (1, 7, 19, 160)


def in_batch_mode(script, **environment):
    """A process of its own: the mode is that of its engines."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False,
                          env=dict(os.environ, PYTHONPATH=":".join(entry for entry in sys.path if entry), **environment))


class Experts:
    """An MLP with adapters, and sequences that were routed: their rows, choices and gates."""

    def __init__(self, device, dtype):
        def drawn(*shape, scale=1.0):
            return (scale * torch.randn(*shape)).to(device, dtype)

        self.gate_up, self.down = drawn(E, 2 * N, K, scale=K**-0.5), drawn(E, K, N, scale=N**-0.5)
        self.adapters = [drawn(E, R, K, scale=0.2), drawn(E, 2 * N, R), drawn(E, R, N, scale=0.2), drawn(E, K, R)]
        self.rows = [drawn(length, K) for length in LENGTHS]
        self.choices = [torch.rand(length, E, device=device).argsort(1)[:, :TOP_K] for length in LENGTHS]
        self.gates = [torch.rand(length, TOP_K, device=device).to(dtype) for length in LENGTHS]

    def __call__(self, x, gates, choices, *adapters):
        A_up, B_up, A_down, B_down = adapters
        routing = smlora.route(choices, E)
        return smlora.moe_lora_mlp(
            x, self.gate_up.transpose(1, 2), self.down.transpose(1, 2), routing, gates, activation="swiglu",
            gate_up_lora=smlora.Adapter(A_up, B_up, 2.0), down_lora=smlora.Adapter(A_down, B_down, 2.0))

    def step(self, function, x, gates, choices):
        """The output and the gradients of x, the gates and the adapters."""
        leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, gates, *self.adapters)]
        y = function(leaves[0], leaves[1], choices, *leaves[2:])
        y.float().square().sum().backward()
        return y.detach(), [leaf.grad for leaf in leaves]


def assert_same_bits(got, expected):
    assert torch.equal(got.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def experts(request, device):
    if device.type == "cuda" and os.environ.get("SMLORA_DETERMINISM") != "batch":
        pytest.skip("needs SMLORA_DETERMINISM=batch, by which kernels on a GPU are chosen for every batch alike")
    return Experts(device, request.param)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_replayed_routing_is_exact_under_checkpointing(experts, use_reentrant):
    """A rollout of one sequence at a time keeps its choices; training replays them in a batch and computes it twice."""
    with torch.no_grad():
        rollout = [experts(*sequence, *experts.adapters) for sequence in zip(experts.rows, experts.gates, experts.choices)]
    batch = [torch.cat(parts) for parts in (experts.rows, experts.gates, experts.choices)]

    def checkpointed(*arguments):
        return torch.utils.checkpoint.checkpoint(experts, *arguments, use_reentrant=use_reentrant)

    y, gradients = experts.step(experts, *batch)
    again, gradients_again = experts.step(checkpointed, *batch)
    assert_same_bits(y, torch.cat(rollout))
    assert_same_bits(again, y)
    for got, expected in zip(gradients_again, gradients, strict=True):
        assert_same_bits(got, expected)


def test_gradients_of_rows_and_gates_do_not_depend_on_the_batch(experts):
    batch = [torch.cat(parts) for parts in (experts.rows, experts.gates, experts.choices)]
    _, (dx, dgates, *_) = experts.step(experts, *batch)
    alone = [experts.step(experts, *sequence)[1] for sequence in zip(experts.rows, experts.gates, experts.choices)]
    assert_same_bits(dx, torch.cat([gradients[0] for gradients in alone]))
    assert_same_bits(dgates, torch.cat([gradients[1] for gradients in alone]))


@pytest.fixture
def row_by_row(monkeypatch):
    """The products that are torch's, each row or matrix for itself: their bits depend on the batch otherwise."""
    linear, matmul = torch.nn.functional.linear, torch.matmul

    def linear_by_row(x, weight, bias=None):
        rows = [linear(row[None], weight, bias) for row in x.reshape(-1, x.shape[-1])]
        return torch.cat(rows).view(*x.shape[:-1], weight.shape[0])

    def matmul_by_matrix(a, b):
        if a.dim() < 3 or a.shape[:-2] != b.shape[:-2]:
            return matmul(a, b)
        pairs = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]))
        return torch.stack([matmul(*pair) for pair in pairs]).view(*a.shape[:-1], b.shape[-1])

    monkeypatch.setattr(torch.nn.functional, "linear", linear_by_row)
    monkeypatch.setattr(torch, "matmul", matmul_by_matrix)


@pytest.mark.parametrize("name", ["qwen3_moe", "olmoe", "mixtral", "gpt_oss"])
def test_logits_of_a_sequence_do_not_depend_on_its_batch(name, row_by_row, monkeypatch):
    pytest.importorskip("transformers", reason="needs transformers")
    pytest.importorskip("peft", reason="needs peft")
    from models import build, with_adapter
    from smlora.transformers import _experts

    rows = []
    computed = _experts.moe_lora_mlp

    def counted(x, *given, **named):
        rows.append(len(x))
        return computed(x, *given, **named)

    monkeypatch.setattr(_experts, "moe_lora_mlp", counted)
    model = with_adapter(build(name, "smlora")).eval()
    ids = torch.randint(3, 97, (5, 19))
    with torch.no_grad():
        batch = model(input_ids=ids).logits
        for one, logits in zip(ids, batch):
            assert_same_bits(model(input_ids=one[None]).logits[0], logits)
    layers = model.config.num_hidden_layers
    assert rows == [5 * 19] * layers + [19] * (5 * layers), "the experts of each layer were smlora's"


SCRIPT = """
import torch, smlora
smlora.set_determinism({first!r})
smlora.route(torch.tensor([[0, 1]]), 3)
smlora.set_determinism({first!r})
smlora.set_determinism({second!r})
"""


def test_the_mode_is_set_before_the_first_operation():
    assert in_batch_mode(SCRIPT.format(first="batch", second="batch")).returncode == 0
    late = in_batch_mode(SCRIPT.format(first="batch", second="run"))
    assert "RuntimeError: determinism: expected before the first operation of the process, got 'run' after it" in late.stderr
    with pytest.raises(ValueError, match="determinism: expected \"run\" or \"batch\", got 'always'"):
        smlora.set_determinism("always")


def test_a_wrong_variable_is_named():
    route = "import torch, smlora; smlora.route(torch.tensor([[0, 1]]), 3)"
    assert in_batch_mode(route, SMLORA_DETERMINISM="batch").returncode == 0
    wrong = in_batch_mode(route, SMLORA_DETERMINISM="on")
    assert 'ValueError: SMLORA_DETERMINISM: expected run or batch, got "on"' in wrong.stderr
    set_anyway = in_batch_mode(f"import smlora; smlora.set_determinism('run'); {route}", SMLORA_DETERMINISM="on")
    assert set_anyway.returncode == 0, "what is set overrules the variable"
