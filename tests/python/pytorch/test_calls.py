"""What a call of an operation checks, what its errors become, and what it costs the host."""

import time

import pytest
import smlora
import torch
from smlora import _library, _native
from reference import Layer


class OnGpu:
    """As much of a tensor as the extension module asks for."""

    dtype, shape, device = torch.float32, (2, 2), torch.device("cuda", 1)

    def get_device(self):
        return 1

    def stride(self):
        return (2, 1)

    def data_ptr(self):
        return 4096


def test_a_tensor_on_another_device_is_never_read():
    y, out = torch.zeros(4, 8), torch.zeros(2, 8)
    with pytest.raises(ValueError, match="gates: expected a tensor on cpu, where y is, got one on cuda:1"):
        _native.combine_rows(_library.cpu_engine(), 0, None, y, OnGpu(), 2, out)


def test_errors_of_the_library_become_exceptions():
    with pytest.raises(ValueError, match="folders: expected absolute paths"):
        _native.set_nvrtc_folders(["relative"])
    with pytest.raises((NotImplementedError, smlora.Error, ValueError)):
        _native.engine(7, 0, "", 0, 0)
    assert issubclass(smlora.Error, RuntimeError)


def test_five_dimensions_are_refused():
    with pytest.raises(ValueError, match="at most 4 dimensions"):
        _native.combine_rows(_library.cpu_engine(), 0, None, torch.zeros(1, 1, 1, 1, 1), None, 1, torch.zeros(1, 1))


@pytest.mark.parametrize("name", _native.schemas)
def test_the_number_of_arguments_of_an_operator_is_checked(name):
    arguments, outputs = (text.split(", ") for text in _native.schemas[name])
    count = 3 + len(arguments) + len(outputs)
    for given in (0, count - 1, count + 1):
        with pytest.raises(TypeError, match=rf"{name}: expected {count} arguments \(engine, stream, allocate, .*got {given}$"):
            getattr(_native, name)(*[None] * given)


@pytest.mark.parametrize(
    "name, count",
    [("engine", 5), ("set_nvrtc_folders", 1), ("system_info", 0), ("cache_stats", 1), ("padded_rank", 1), ("set_torch", 2),
     ("check_problem", 1)],
)
def test_the_number_of_arguments_of_a_function_is_checked(name, count):
    given = {"engine": (1, 0, "", 1, 0), "set_nvrtc_folders": ([],), "cache_stats": (_library.cpu_engine(),),
             "padded_rank": (3,), "set_torch": ([], None),
             "check_problem": (smlora.Problem(4, 16, 16, 4, 2).numbers(),)}.get(name, ())
    assert len(given) == count
    for arguments in (given[:-1], (*given, 0)) if given else ((0,),):
        with pytest.raises(TypeError, match="too few arguments|arguments too many"):
            getattr(_native, name)(*arguments)


def test_a_problem_with_a_field_too_many_is_refused():
    numbers = smlora.Problem(4, 16, 16, 4, 2).numbers()
    for fields in (numbers[:-1], [*numbers, 0]):
        with pytest.raises(TypeError, match="too few arguments|1 arguments too many"):
            _native.prewarm(_library.cpu_engine(), [fields], [1])


def test_threads_may_call_at_once():
    from concurrent.futures import ThreadPoolExecutor

    layer = Layer(dtype=torch.bfloat16, T=64, y_rows="token")
    routing = smlora.route(layer.choices, layer.E)

    def step(_):
        y = smlora.moe_lora_linear(layer.x, layer.W, routing, layer.A, layer.B, gates=layer.gates, y_rows="token")
        return y, *torch.autograd.grad(y.float().sum(), (layer.x, layer.A, layer.B))

    expected = step(0)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(step, range(16)):
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def best_of(call):
    """Seconds of this thread."""
    best = float("inf")
    for _ in range(20):
        begin = time.thread_time()
        for _ in range(50):
            call()
        best = min(best, (time.thread_time() - begin) / 50)
    return best


def test_a_warm_call_costs_no_more_than_150_additions(device):
    """Four times as many as it does; a list or a copy on the way would still show."""
    layer = Layer(E=128, K=64, N=32, R=16, top_k=8, T=0, dtype=torch.bfloat16, device=device)
    routing = smlora.route(layer.choices, layer.E)
    one = torch.ones(1)

    def call():
        return smlora.moe_lora_linear(layer.x, layer.W, routing, layer.A, layer.B)

    for _ in range(100):
        call()
    calls, additions = best_of(call), best_of(lambda: one + one)
    print(f"{calls * 1e6:.1f} us, {calls / additions:.0f} additions")
    assert calls < 150 * additions
