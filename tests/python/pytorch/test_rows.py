"""route, group and combine."""

import pytest
import smlora
import torch
from reference import random_choices


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("choice_dtype", [torch.int32, torch.int64])
def test_route_is_a_stable_sort(device, index_dtype, choice_dtype):
    E = 7
    choices = random_choices(50, 3, E, device, left_out=True).to(choice_dtype)
    routing = smlora.route(choices, E, index_dtype=index_dtype)
    experts = choices.flatten().long()
    experts = torch.where(experts < 0, E, experts)
    ordered, order = torch.sort(experts, stable=True)
    assert torch.equal(routing.sorted_expert_idxs.long(), ordered)
    assert torch.equal(routing.sorted_scattered_idxs.long(), order)
    assert torch.equal(routing.expert_offsets.long(), torch.bincount(experts, minlength=E)[:E].cumsum(0))
    assert {t.dtype for t in routing[:3]} == {index_dtype}
    assert routing.top_k == 3


def test_combine_and_its_gradients():
    y = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(smlora.combine(y, gates), (y.view(4, 3, 5) * gates.unsqueeze(2)).sum(1))
    torch.testing.assert_close(smlora.combine(y, top_k=3), y.view(4, 3, 5).sum(1))
    assert torch.autograd.gradcheck(smlora.combine, (y, gates))
    assert torch.autograd.gradcheck(lambda y: smlora.combine(y, top_k=3), (y,))
    with pytest.raises(ValueError, match="top_k"):
        smlora.combine(y)


@pytest.mark.parametrize("rows", ["token", "scattered"])
@pytest.mark.parametrize("with_gates", [False, True])
def test_group_and_its_gradients(rows, with_gates):
    T, k, E = 6, 2, 4
    choices = random_choices(T, k, E, left_out=True)
    routing = smlora.route(choices, E)
    x = torch.randn(T if rows == "token" else T * k, 5, dtype=torch.float64, requires_grad=True)
    gates = torch.rand(T, k, dtype=torch.float64, requires_grad=with_gates)
    flat = routing.sorted_scattered_idxs.long()
    expected = x[flat // k if rows == "token" else flat] * (choices.flatten()[flat] >= 0).unsqueeze(1)
    if with_gates:
        expected = expected * gates.flatten()[flat].unsqueeze(1)
    got = smlora.group(x, routing, gates if with_gates else None, rows=rows)
    torch.testing.assert_close(got, expected)
    inputs = (x, gates) if with_gates else (x,)
    assert torch.autograd.gradcheck(lambda x, *gates: smlora.group(x, routing, *gates, rows=rows), inputs)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("rows", ["token", "scattered"])
def test_what_stands_in_entries_left_out_reaches_no_gradient_of_group(rows, create_graph):
    routing = smlora.route(torch.tensor([[0, -1], [1, 0], [-1, -1]]), 2)
    x = torch.randn(3 if rows == "token" else 6, 4)
    gates = torch.rand(3, 2)
    dy = torch.randn(6, 4)

    def gradients(value):
        inputs = [x.clone(), gates.clone()]
        if rows == "scattered":
            inputs[0][[1, 4, 5]] = value
        inputs[1].view(-1)[[1, 4, 5]] = value
        gradient = dy.clone()
        gradient[3:] = value
        inputs = [tensor.requires_grad_() for tensor in inputs]
        y = smlora.group(inputs[0], routing, inputs[1], rows=rows)
        assert torch.equal(y[3:], torch.zeros(3, 4))
        return torch.autograd.grad(y, inputs, gradient, create_graph=create_graph)

    for got, expected in zip(gradients(float("nan")), gradients(0.0)):
        assert torch.equal(got, expected)


def test_group_and_combine_undo_each_other(device):
    T, k, E = 20, 2, 6
    routing = smlora.route(random_choices(T, k, E, device), E)
    x = torch.randn(T, 16, device=device, dtype=torch.bfloat16)
    scattered = torch.empty(T * k, 16, device=device, dtype=torch.bfloat16)
    scattered[routing.sorted_scattered_idxs.long()] = smlora.group(x, routing)
    half = torch.full((T, k), 0.5, device=device)
    assert torch.equal(smlora.combine(scattered, half), x)


def test_group_refuses_grouped_rows():
    routing = smlora.route(random_choices(3, 2, 4), 4)
    with pytest.raises(ValueError, match="rows"):
        smlora.group(torch.zeros(6, 4), routing, rows="grouped")


def test_gradients_that_are_one_row_are_taken(device):
    """The gradient of a sum over rows has a row stride of 0."""
    routing = smlora.route(torch.tensor([[0, 1], [1, 2], [2, 0]], device=device), 3)
    gates = torch.rand(3, 2, device=device)
    for operation in (
        lambda rows: smlora.combine(rows, gates),
        lambda rows: smlora.group(rows, routing, rows="scattered"),
        smlora.gated_activation,
    ):
        rows = torch.randn(6, 8, device=device, requires_grad=True)
        out = operation(rows)
        dense = torch.autograd.grad(out, rows, torch.ones_like(out), retain_graph=True)[0]
        assert torch.equal(torch.autograd.grad(out.sum(0).sum(), rows)[0], dense)


def test_errors_name_the_argument():
    routing = smlora.route(torch.tensor([[0, 1], [1, 2]]), 3)
    rows, gates = torch.zeros(4, 8), torch.zeros(2, 2)
    for call, message in (
        (lambda: smlora.route([[0, 1]], 3), "top_idx: expected a tensor \\[T, top_k\\], got .* of type list"),
        (lambda: smlora.route(torch.zeros(2, 2).short(), 3), "top_idx: expected a tensor of .*, got torch.int16"),
        (lambda: smlora.route(torch.zeros(2, 2).int(), -1), "num_experts: expected 1 to 1024, got -1"),
        (lambda: smlora.route(torch.zeros(2, 2).int(), 4, index_dtype=torch.int16),
         "index_dtype: expected torch.int32 or torch.int64, got torch.int16"),
        (lambda: smlora.combine(rows, top_k=0), "top_k: expected 1 to 64, got 0"),
        (lambda: smlora.combine(rows, gates[:, 0]), "gates: expected a tensor \\[T, top_k\\], got \\[2\\]"),
        (lambda: smlora.combine(rows[0], gates), "y: expected a tensor \\[T \\* top_k, width\\], got \\[8\\]"),
        (lambda: smlora.group(rows[0], routing), "x: expected a tensor \\[rows, width\\], got \\[8\\]"),
        (lambda: smlora.group(rows[:2], None), "routing: expected a Routing.*, got None"),
        (lambda: smlora.gated_activation(rows[0]), "h: expected a tensor \\[rows, 2 \\* width\\], got \\[8\\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
