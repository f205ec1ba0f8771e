"""Rows that their caller has sorted by expert: routings, gradients, and the examples of docs/sorted_tokens.md."""

import types

import pytest
import smlora
import torch
from pages import names_of
from reference import assert_close

COUNTS = [5, 0, 7, 1]
E, K, I, R = len(COUNTS), 24, 16, 4


def leaf(*shape, device="cpu"):
    return (torch.randn(shape, device=device) * 0.5).requires_grad_()


def adapter_of(inputs, outputs, device="cpu", scaling=2.0):
    return smlora.Adapter(leaf(E, R, inputs, device=device), leaf(E, outputs, R, device=device), scaling)


def expected_rows(x, weight, adapter):
    """[sum of COUNTS, out] of weights [E, out, in], in double."""
    matrices = weight.double() + adapter.scaling * adapter.lora_B.double() @ adapter.lora_A.double()
    pieces = x[:sum(COUNTS)].double().split(COUNTS)
    return torch.cat([rows @ matrix.T for rows, matrix in zip(pieces, matrices, strict=True)])


def check(got, expected, leaves):
    """A result and its gradients, where those of padding are zero."""
    padded = torch.zeros_like(got, dtype=torch.float64)
    padded[:expected.shape[0]] = expected
    direction = torch.randn_like(got)
    gradients = torch.autograd.grad((got * direction).sum(), leaves)
    wanted = torch.autograd.grad((padded * direction).sum(), leaves)
    assert_close(got, padded, torch.float32, "result")
    for number, (a, b) in enumerate(zip(gradients, wanted, strict=True)):
        assert_close(a, b, torch.float32, f"gradient {number}", factor=2)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("of", [list, tuple, torch.tensor, lambda counts: torch.tensor(counts, dtype=torch.int32)])
def test_is_the_routing_of_those_choices(of, index_dtype, device):
    counts = of(COUNTS)
    if isinstance(counts, torch.Tensor):
        counts = counts.to(device)
    routing = smlora.routing_of_counts(counts, device=device, index_dtype=index_dtype)
    choices = torch.arange(E).repeat_interleave(torch.tensor(COUNTS)).unsqueeze(1).to(device)
    for got, expected in zip(routing, smlora.route(choices, E, index_dtype=index_dtype), strict=True):
        if isinstance(got, torch.Tensor):
            assert got.dtype == expected.dtype and got.device == expected.device
        assert torch.equal(torch.as_tensor(got), torch.as_tensor(expected))


def test_rows_beyond_the_counts_are_left_out(device):
    routing = smlora.routing_of_counts(COUNTS, 20, device=device)
    assert routing.sorted_expert_idxs[sum(COUNTS):].tolist() == [E] * 7
    assert routing.expert_offsets.tolist() == [5, 5, 12, 13]
    x = torch.full((20, K), float("nan"), device=device)
    x[:13] = 1
    y = smlora.moe_lora_linear(x, torch.ones(E, K, 8, device=device), routing, x_rows="grouped", y_rows="grouped")
    assert torch.equal(y[:13], torch.full((13, 8), float(K), device=device)) and not y[13:].any()


def test_no_rows(device):
    routing = smlora.routing_of_counts([0] * E, device=device)
    x = torch.empty(0, K, device=device)
    assert smlora.moe_lora_linear(x, torch.ones(E, K, 8, device=device), routing, x_rows="grouped").shape == (0, 8)


@pytest.mark.parametrize("rows", [sum(COUNTS), 20])
@pytest.mark.parametrize("y_rows", ["grouped", "scattered", "token"])
def test_gradients_of_grouped_rows(rows, y_rows, device):
    x, weight, adapter = leaf(rows, K, device=device), leaf(E, I, K, device=device), adapter_of(K, I, device)
    routing = smlora.routing_of_counts(torch.tensor(COUNTS), rows, device=device)
    y = smlora.moe_lora_linear(x, weight.transpose(1, 2), routing, *adapter[:2], scaling=2.0, x_rows="grouped", y_rows=y_rows)
    check(y, expected_rows(x, weight, adapter), [x, weight, *adapter[:2]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_does_not_wait_for_counts_on_a_gpu():
    counts = torch.tensor(COUNTS, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        routing = smlora.routing_of_counts(counts, 20)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert routing.expert_offsets.tolist() == [5, 5, 12, 13]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_wrong_counts_on_a_gpu_stay_within_the_rows():
    routing = smlora.routing_of_counts(torch.tensor([5, -3, 90], device="cuda"), 20)
    assert routing.expert_offsets.tolist() == [5, 5, 20]


@pytest.mark.parametrize("arguments, message", [
    ((torch.ones(2, 3, dtype=torch.int64),), r"tokens_per_expert: expected a tensor \[E\], got \[2, 3\]"),
    ((torch.ones(3),), "tokens_per_expert: expected whole numbers, got torch.float32"),
    (([3, 1.5],), r"tokens_per_expert\[1\]: expected a whole number, got 1.5"),
    (([3, -1],), r"tokens_per_expert\[1\]: expected 0 or more, got -1"),
    ((torch.tensor([3, -1]),), "tokens_per_expert: expected 0 or more, got -1 of expert 1"),
    (([],), "length of tokens_per_expert: expected 1 to 1024, got 0"),
    (([1] * 1025,), "length of tokens_per_expert: expected 1 to 1024, got 1025"),
    ((7,), "tokens_per_expert: expected a tensor"),
    ((COUNTS, 12), "rows: expected at least 13, the sum of tokens_per_expert, got 12"),
    ((COUNTS, -1), "rows: expected 0 or more, got -1"),
    ((COUNTS, 2.5), "rows: expected a whole number, got 2.5"),
])
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        smlora.routing_of_counts(*arguments)


def test_a_wrong_index_dtype_is_named():
    with pytest.raises(ValueError, match="index_dtype: expected torch.int32 or torch.int64, got torch.int16"):
        smlora.routing_of_counts(COUNTS, index_dtype=torch.int16)


# ---- the examples -----------------------------------------------------------------------------------------------------


def swiglu(h):
    gate, value = h.chunk(2, -1)
    return torch.nn.functional.silu(gate) * value


def probabilities(rows, device):
    return torch.rand(rows, device=device).requires_grad_()


@pytest.mark.parametrize("counts", [list, torch.tensor])
def test_megatron(counts, device):
    experts = names_of("sorted_tokens.md", "Megatron-Core")["megatron_experts"]
    rows = sum(COUNTS)
    x, probs = leaf(rows, K, device=device), probabilities(rows, device)
    fc1, fc2 = leaf(E, 2 * I, K, device=device).detach(), leaf(E, K, I, device=device).detach()
    up, down = adapter_of(K, 2 * I, device), adapter_of(I, K, device)
    output, bias = experts(x, counts(COUNTS), probs, fc1, fc2, up, down)
    assert bias is None
    weighted = swiglu(expected_rows(x, fc1, up)) * probs.double().unsqueeze(-1)
    check(output, expected_rows(weighted, fc2, down), [x, probs, *up[:2], *down[:2]])


@pytest.mark.parametrize("padding", [0, 3])
def test_torchtitan(padding, device):
    experts = names_of("sorted_tokens.md", "torchtitan")["torchtitan_experts"]
    x = leaf(sum(COUNTS) + padding, K, device=device)
    w1, w3, w2 = leaf(E, I, K, device=device), leaf(E, I, K, device=device), leaf(E, K, I, device=device)
    gate, up, down = adapter_of(K, I, device), adapter_of(K, I, device), adapter_of(I, K, device)
    got = experts(w1, w2, w3, x, torch.tensor(COUNTS, device=device), gate, up, down)
    h = torch.nn.functional.silu(expected_rows(x, w1, gate)) * expected_rows(x, w3, up)
    check(got, expected_rows(h, w2, down), [x, w1, w2, w3, *gate[:2], *up[:2], *down[:2]])


def test_nemo(device):
    experts = names_of("sorted_tokens.md", "NeMo")["nemo_experts"]
    rows = sum(COUNTS)
    x, probs = leaf(rows, K, device=device), probabilities(rows, device)
    gate_and_up, down = leaf(E, K, 2 * I, device=device).detach(), leaf(E, I, K, device=device).detach()
    lora = types.SimpleNamespace(
        gate_and_up_A=leaf(E, K, R, device=device), gate_and_up_B=leaf(E, R, 2 * I, device=device),
        down_A=leaf(E, I, R, device=device), down_B=leaf(E, R, K, device=device),
    )
    got = experts(x, torch.tensor(COUNTS), probs, gate_and_up, down, lora, 0.5)

    def adapter(A, B):
        return smlora.Adapter(A.transpose(1, 2), B.transpose(1, 2), 0.5)

    h = swiglu(expected_rows(x, gate_and_up.transpose(1, 2), adapter(lora.gate_and_up_A, lora.gate_and_up_B)))
    weighted = h * probs.double().unsqueeze(-1)
    expected = expected_rows(weighted, down.transpose(1, 2), adapter(lora.down_A, lora.down_B))
    check(got, expected, [x, probs, *vars(lora).values()])
