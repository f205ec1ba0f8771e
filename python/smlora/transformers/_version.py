"""Which Transformers lets one choose an implementation that was registered."""

import re

import transformers

OLDEST = (5, 7)


def check_version():
    found = tuple(map(int, re.findall(r"\d+", transformers.__version__)[:2]))
    if found < OLDEST:
        raise ImportError(f"transformers: expected {'.'.join(map(str, OLDEST))} or later, got {transformers.__version__}")
