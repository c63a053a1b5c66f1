"""How fast the machine is at the moment, for limits in seconds that were set on a faster one."""

from __future__ import annotations

import time

USUAL = 0.0625
"""Seconds that the piece of work takes where the limits of the tests were set."""


def slowness() -> float:
    """Return how many times as long as usual the interpreter takes for the same work, at least 1."""
    return max(1.0, min(_work() for _ in range(3)) / USUAL)


def _work() -> float:
    began = time.thread_time()
    seen: dict[str, tuple[int, str]] = {}
    for number in range(200_000):
        seen[f"a{number % 1000}"] = (number, str(number))
    return time.thread_time() - began
