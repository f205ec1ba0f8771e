"""Warnings that are given once in a process."""

import warnings

warned = set()


def warn_once(reason):
    if reason not in warned:
        warned.add(reason)
        warnings.warn(f"smlora: {reason}", stacklevel=3)
