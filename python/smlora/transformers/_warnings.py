"""Warnings that are given once in a process, at the line of the program that led to them."""

import sys
import warnings

warned = set()

_PACKAGES = {"smlora", "torch", "transformers", "peft", "accelerate", "contextlib", "functools"}
"""What lies between that line and here."""


def _levels_to_the_program():
    frame, level = sys._getframe(2), 2
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES:
        frame, level = frame.f_back, level + 1
    return level


def warn_once(reason):
    if reason not in warned:
        warned.add(reason)
        warnings.warn(f"smlora: {reason}", stacklevel=_levels_to_the_program())
