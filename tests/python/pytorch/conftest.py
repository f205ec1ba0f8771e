import os
import random

import pytest
import torch

# What is tested is what operations compute, not which kernels are fastest.
os.environ.setdefault("SMLORA_TUNING", "record-only")


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def seed(request):
    """A fresh one for every test; pytest shows the line when the test fails. SEED=.. in the environment repeats it."""
    value = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**31))
    print(f"SEED={value}")
    torch.manual_seed(value)
    random.seed(value)
    return value
