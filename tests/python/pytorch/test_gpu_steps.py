"""Training steps on a GPU: streams, graphs, memory, devices, and no waiting for any of them."""

import pytest
import smlora
import torch
from reference import Layer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def training_step(layer):
    routing = smlora.route(layer.choices, layer.E)
    y = smlora.moe_lora_linear(layer.x, layer.W, routing, layer.A, layer.B, gates=layer.gates, y_rows="token")
    # Without a graph that would tie the leaves to this call's stream.
    return y.detach(), *torch.autograd.grad(y.square().sum(), (layer.x, layer.A, layer.B, layer.gates))


def gpu_layer(device="cuda", **changes):
    return Layer(E=8, K=128, N=64, R=8, T=96, dtype=torch.bfloat16, y_rows="token", device=device, **changes)


def linear_step():
    layer = gpu_layer()
    return lambda: training_step(layer)


def mlp_step():
    E, K, I, R, T, k = 8, 64, 96, 8, 96, 2

    def leaf(*shape, dtype=torch.bfloat16):
        return torch.randn(shape, device="cuda", dtype=dtype).requires_grad_()

    x, W1, W2, gates = leaf(T, K), leaf(E, 2 * I, K).detach(), leaf(E, K, I).detach(), leaf(T, k)
    first, second = ([leaf(E, R, inputs, dtype=torch.float32), leaf(E, outputs, R, dtype=torch.float32)]
                     for inputs, outputs in ((K, 2 * I), (I, K)))
    choices = torch.rand(T, E, device="cuda").topk(k).indices

    def step():
        routing = smlora.route(choices, E)
        out = smlora.moe_lora_mlp(x, W1.transpose(1, 2), W2.transpose(1, 2), routing, gates, gate_up_lora=(*first, 2.0),
                                  down_lora=(*second, 2.0))
        return torch.autograd.grad(out.square().sum(), (x, gates, *first, *second))

    return step


def drop_in_step():
    from smlora.scattermoe import ScatterMoELoRA, flatten_sort_count

    layer = gpu_layer()
    A, B = (tensor.detach().requires_grad_() for tensor in (
        layer.A.reshape(-1, layer.K), layer.B.permute(1, 0, 2).reshape(layer.N, -1)
    ))

    def step():
        arrays = flatten_sort_count(layer.choices, layer.E)
        y = ScatterMoELoRA.apply(layer.x, layer.W, layer.top_k, *arrays, A, B, 2.0, None, layer.gates)
        return torch.autograd.grad(y.square().sum(), (layer.x, A, B, layer.gates))

    return step


def experts_step():
    """Of a Transformers model's experts with PEFT's adapters."""
    pytest.importorskip("peft", reason="needs peft")
    from test_transformers import both, with_adapter

    _, model = both("qwen3_moe", with_adapter, device="cuda", dtype=torch.bfloat16)
    experts = model.base_model.model.model.layers[0].mlp.experts
    adapters = [parameter for parameter in experts.parameters() if parameter.requires_grad]
    x = torch.randn(40, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    choices = torch.rand(40, 6, device="cuda").topk(2).indices
    gates = torch.rand(40, 2, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    return lambda: torch.autograd.grad(experts(x, choices, gates).square().sum(), (x, gates, *adapters))


@needs_gpu
@pytest.mark.parametrize("prepare", [linear_step, mlp_step, drop_in_step, experts_step])
def test_no_host_synchronisation_in_a_step(prepare):
    step = prepare()
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_a_step_in_a_cuda_graph():
    layer = gpu_layer()
    expected = training_step(layer)
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        training_step(layer)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        captured = training_step(layer)
    for tensor in captured:
        tensor.detach().zero_()
    graph.replay()
    torch.cuda.synchronize()
    for got, want in zip(captured, expected, strict=True):
        assert torch.equal(got, want)


@needs_gpu
def test_work_is_ordered_by_the_current_stream():
    layer = gpu_layer()
    expected = training_step(layer)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    late = layer.x.detach().clone()
    with torch.no_grad():
        layer.x.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        with torch.no_grad():
            layer.x.copy_(late)
        got = training_step(layer)
    stream.synchronize()
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@needs_gpu
def test_workspaces_come_from_torchs_allocator():
    layer = gpu_layer()
    training_step(layer)
    torch.cuda.synchronize()
    outside = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    for _ in range(20):
        training_step(layer)
    torch.cuda.synchronize()
    assert torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() >= outside - (1 << 20)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one():
    torch.manual_seed(1)
    first = training_step(gpu_layer("cuda:0"))
    torch.manual_seed(1)
    with torch.cuda.device(0):
        second = training_step(gpu_layer("cuda:1"))
    for a, b in zip(first, second, strict=True):
        assert b.device.index == 1 and torch.equal(a.cpu(), b.cpu())
