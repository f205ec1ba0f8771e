"""How operations are timed on a GPU: in a burst after idle, and sustained until the chip's power limits it."""

import statistics
import time

import torch


def _timed(calls, count, first=0):
    """Milliseconds of each of `count` calls, the operands rotated."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    # What keeps the GPU busy while the host runs ahead, so that its own time is not measured.
    torch.cuda._sleep(2_000_000)
    events[0].record()
    for i in range(count):
        calls[(first + i) % len(calls)]()
        events[i + 1].record()
    torch.cuda.synchronize()
    return [events[i].elapsed_time(events[i + 1]) for i in range(count)]


def burst_ms(calls):
    """The median of two rounds of 20 calls, each after 120 ms of idleness and three warm-ups."""
    samples = []
    for _ in range(2):
        torch.cuda.synchronize()
        time.sleep(0.12)
        _timed(calls, 3)
        samples += _timed(calls, 20, first=3)
    return statistics.median(samples)


def sustained_ms(calls):
    """The median over about 0.3 s, after as much of warm-up back to back."""
    estimate = max(statistics.median(_timed(calls, 3)), 1e-3)
    count = max(10, int(300 / estimate))
    _timed(calls, count)
    return statistics.median(_timed(calls, count))


PROTOCOLS = {"burst": burst_ms, "sustained": sustained_ms}


def ceilings(time_ms):
    """(TFLOP/s of a dense 8192^3 product in bf16, GB/s of a copy on the device), by the same protocol."""
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    c = torch.empty_like(a)
    tflops = 2 * n**3 / time_ms([lambda: torch.mm(a, b, out=c)]) / 1e9
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    gbs = 2 * 2**30 / time_ms([lambda: target.copy_(source)]) / 1e6
    return tflops, gbs
