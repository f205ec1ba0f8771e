"""Which part of an adapter meets the weights of a rank, without other ranks."""

import types

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("peft", reason="needs peft")

import smlora  # noqa: E402
from models import build  # noqa: E402
from smlora.transformers._parallel import Layout, part_of  # noqa: E402

E, K, N, R = 6, 10, 16, 3


class Mesh:
    """Of a rank, without the others: {name: (rank, ranks)}"""

    def __init__(self, **dims):
        self.dims, self.ndim = dims, len(dims)
        self.mesh_dim_names = tuple(dims)

    def __getitem__(self, name):
        return Mesh(**{name: self.dims[name]})

    def get_local_rank(self):
        return next(iter(self.dims.values()))[0]

    def size(self):
        return next(iter(self.dims.values()))[1]

    def get_group(self):
        return None


def placement(dim, split_factor=1):
    return types.SimpleNamespace(dim=dim, split_factor=split_factor)


def adapter():
    return smlora.Adapter(torch.randn(E, R, K, requires_grad=True), torch.randn(E, N, R, requires_grad=True), 2.0)


def part(whole, weight, owner, layout=None):
    return part_of(whole, torch.empty(weight, device="meta"), owner, "gate_up_proj", layout)


class Experts(torch.nn.Module):
    is_transposed = False

    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)


def test_all_of_it_where_a_rank_holds_everything():
    whole = adapter()
    assert part(whole, (E, K, N), Experts()) is whole


@pytest.mark.parametrize("owner, layout", [
    (Experts(local_expert_offset=4), None),
    (Experts(), Layout(Mesh(ep=(2, 3)), (placement(0),))),
    (Experts(), Layout(Mesh(efsdp=(1, 3), ep=(2, 3)), (placement(0), placement(0)))),
    (Experts(), Layout(Mesh(anything=(2, 3)), (placement(0),))),
])
def test_the_experts_of_a_rank_and_zeros_for_the_others(owner, layout):
    whole = adapter()
    A, B, scaling = part(whole, (2, K, N), owner, layout)
    assert torch.equal(A, whole.lora_A[4:]) and torch.equal(B, whole.lora_B[4:]) and scaling == 2.0
    (A.sum() + B.sum()).backward()
    for factor in whole[:2]:
        assert torch.equal(factor.grad, torch.cat([torch.zeros_like(factor[:4]), torch.ones_like(factor[4:])]))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_part_of_gate_and_of_up(rank):
    whole = adapter()
    layout = Layout(Mesh(tp=(rank, 2)), (placement(1, split_factor=2),))
    A, B, _ = part(whole, (E, K, N // 2), Experts(), layout)
    gate, up = whole.lora_B.chunk(2, 1)
    assert torch.equal(A, whole.lora_A)
    assert torch.equal(B, torch.cat([gate.chunk(2, 1)[rank], up.chunk(2, 1)[rank]], 1))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_part_of_the_inputs(rank):
    whole = adapter()
    layout = Layout(Mesh(fsdp=(0, 2), tp=(rank, 2)), (placement(0), placement(2)))
    A, B, _ = part(whole, (E, K // 2, N), Experts(), layout)
    assert torch.equal(A, whole.lora_A.chunk(2, 2)[rank]) and torch.equal(B, whole.lora_B)


def test_parts_of_transposed_weights():
    """[E, in, out]: the dimensions of the placements are the other way round."""
    whole, owner = adapter(), Experts()
    owner.is_transposed = True
    _, B, _ = part(whole, (E, K, N // 2), owner, Layout(Mesh(tp=(1, 2)), (placement(2),)))
    assert torch.equal(B, whole.lora_B.chunk(2, 1)[1])


@pytest.mark.parametrize("weight, owner, layout, message", [
    ((2, K, N), Experts(), None, "gate_up_proj: expected all 6 experts .* got 2 experts, of which nothing says"),
    ((2, K, N), Experts(), Layout(Mesh(ep=(1, 2)), (placement(0),)), "gate_up_proj: expected all 6 experts .* got 2 experts"),
    ((2, K, N), Experts(local_expert_offset=5), None, "local_expert_offset: expected 0 to 4 for 2 of 6 experts, got 5"),
    ((2, K, N), Experts(_is_expert_parallel=True), Layout(Mesh(ep=(2, 3)), (placement(0),)), r"expected .*register\(\) before"),
    ((E, K, 8), Experts(), None, "gate_up_proj: expected experts of 10 inputs and 16 outputs, .* got 10 and 8: a part of each"),
    ((E, K, 8), Experts(), Layout(Mesh(fsdp=(0, 2)), (placement(0),)), "gate_up_proj: expected experts of 10 inputs"),
])
def test_parts_that_nothing_describes(weight, owner, layout, message):
    with pytest.raises(ValueError, match=message):
        part(adapter(), weight, owner, layout)


def test_gates_that_are_known_to_be_ones_are_not_read():
    experts = build("qwen3_moe", "smlora").model.layers[0].mlp.experts
    x, index = torch.randn(9, 32), torch.randint(0, 6, (9, 1))
    expected = experts(x, index, torch.ones(9, 1))
    gates = torch.full((9, 1), float("nan"))
    gates._smlora_ones = True
    assert torch.equal(experts(x, index, gates), expected)
